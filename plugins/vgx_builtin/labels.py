"""Labels beside pictures, for data sets that are asked for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vgx

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class LabelledSource:
    """The pictures of a source, told apart by labels."""

    source: vgx.Source
    label_of: Callable[[int], int]
    fingerprint: str  # changes when the pictures or the labels do

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Image.Image:
        """Return picture `index`, as the source does."""
        return self.source[index]

    def label(self, index: int) -> int:
        """Return the label of picture `index`."""
        return self.label_of(index)


def expect_classes(where: str, classes: int, image: vgx.ImageSpec) -> None:
    """Raise `RecipeError` unless the recipe knows how many classes there are."""
    if image.classes != classes:
        raise vgx.RecipeError(
            f"{where}: there are {classes} classes, and image.classes is {image.classes}; "
            f"say image.classes={classes}"
        )


def column_of_labels(rows: Any, column: str, where: str, image: vgx.ImageSpec) -> list[int]:
    """Return the labels of rows of the library `datasets`, one each.

    Raises `DataError` for a column that has none, and `RecipeError` where `image.classes` is wrong.
    """
    import datasets

    if column not in rows.features:
        raise vgx.DataError(f"{where}: no column '{column}'; it has {', '.join(rows.features)}")
    kind = rows.features[column]
    if isinstance(kind, datasets.ClassLabel):
        expect_classes(f"{where}: label: {column}", kind.num_classes, image)
    elif not (isinstance(kind, datasets.Value) and kind.dtype.startswith(("int", "uint"))):
        raise vgx.DataError(f"{where}: column '{column}' holds no labels but {kind}")
    labels: list[Any] = rows.select_columns([column])[:][column]
    if None in labels:
        raise vgx.DataError(f"{where}: column '{column}': row {labels.index(None)} has no label")
    if image.classes == 0 and labels:
        expect_classes(f"{where}: label: {column}", max(labels) + 1, image)
    return labels
