"""Labels of images, for data sets that have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.columns import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class LabelledSource:
    """The images of a source, each with a label."""

    source: vgx.Encoded
    label_of: Callable[[int], int]
    fingerprint: str  # changes when the images or the labels do
    classes: Sequence[str]  # the names of the labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return image `index`, as the source does."""
        return self.source[index]

    def encoded(self, index: int) -> bytes:
        """Return the file of image `index`, as the source does."""
        return self.source.encoded(index)

    def label(self, index: int) -> int:
        """Return the label of image `index`."""
        return self.label_of(index)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many files are left out, by reason."""
        return self.source.left_out if isinstance(self.source, vgx.Counted) else {}


def natural(text: str) -> tuple[object, ...]:
    """Return what sorts texts as people do: a number in them counts by its value, 2 before 10."""
    # Texts and numbers take turns, so a text is never compared with a number.
    pieces = re.split(r"(\d+)", text)
    return *(int(piece) if piece.isdecimal() else piece for piece in pieces), text


def expect_classes(where: str, names: Sequence[str], image: vgx.ImageSpec) -> None:
    """Raise `RecipeError` unless the recipe knows how many classes there are; it lists them."""
    if image.classes != len(names):
        rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
        listed = ", ".join(name[:100] for name in names[:10])
        raise vgx.RecipeError(
            f"{where}: there are {len(names)} classes ({listed}{rest}), and image.classes is "
            f"{image.classes}; set image.classes={len(names)}"
        )


def column_of_labels(
    rows: Rows, column: str, count: int, where: str, image: vgx.ImageSpec
) -> tuple[list[int], list[str]]:
    """Return the labels of the first rows, and the names of the classes.

    Raises `DataError` for a column that holds no labels, and `RecipeError` for a wrong
    `image.classes`.
    """
    import datasets

    if column not in rows.features:
        raise vgx.DataError(f"{where}: no column '{column}'; it has {', '.join(rows.features)}")
    kind = rows.features[column]
    if isinstance(kind, datasets.ClassLabel):
        expect_classes(f"{where}: label: {column}", kind.names, image)
    elif not (isinstance(kind, datasets.Value) and kind.dtype.startswith(("int", "uint"))):
        raise vgx.DataError(f"{where}: column '{column}' holds {kind}, not labels")
    labels = rows.values(column, count)
    for row, label in enumerate(labels):
        if not isinstance(label, int):
            raise vgx.DataError(f"{where}: column '{column}': row {row} has no label")
    if image.classes == 0 and labels:
        expect_classes(f"{where}: label: {column}", [*map(str, range(max(labels) + 1))], image)
    names = getattr(kind, "names", None) or [*map(str, range(image.classes))]
    return labels, names
