"""Labels of images, for data sets that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.columns import Rows

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class LabelledSource:
    """The images of a source, each with a label."""

    source: vgx.Encoded
    label_of: Callable[[int], int]
    fingerprint: str  # changes when the images or the labels do

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Image.Image:
        """Return image `index`, as the source does."""
        return self.source[index]

    def encoded(self, index: int) -> bytes:
        """Return the file of image `index`, as the source does."""
        return self.source.encoded(index)

    def label(self, index: int) -> int:
        """Return the label of image `index`."""
        return self.label_of(index)


def expect_classes(
    where: str, classes: int, image: vgx.ImageSpec, names: Sequence[str] = ()
) -> None:
    """Raise `RecipeError` unless the recipe knows how many classes there are; it lists them."""
    if image.classes != classes:
        rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
        listed = f" ({', '.join(names[:10])}{rest})" if names else ""
        raise vgx.RecipeError(
            f"{where}: there are {classes} classes{listed}, and image.classes is {image.classes}; "
            f"set image.classes={classes}"
        )


def column_of_labels(
    rows: Rows, column: str, count: int, where: str, image: vgx.ImageSpec
) -> list[int]:
    """Return the labels of the first rows.

    Raises `DataError` for a column that holds no labels, and `RecipeError` for a wrong
    `image.classes`.
    """
    import datasets

    if column not in rows.features:
        raise vgx.DataError(f"{where}: no column '{column}'; it has {', '.join(rows.features)}")
    kind = rows.features[column]
    if isinstance(kind, datasets.ClassLabel):
        expect_classes(f"{where}: label: {column}", kind.num_classes, image, kind.names)
    elif not (isinstance(kind, datasets.Value) and kind.dtype.startswith(("int", "uint"))):
        raise vgx.DataError(f"{where}: column '{column}' holds {kind}, not labels")
    labels = rows.values(column, count)
    for row, label in enumerate(labels):
        if not isinstance(label, int):
            raise vgx.DataError(f"{where}: column '{column}': row {row} has no label")
    if image.classes == 0 and labels:
        expect_classes(f"{where}: label: {column}", max(labels) + 1, image)
    return labels
