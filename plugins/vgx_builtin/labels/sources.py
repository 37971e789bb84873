"""Images with labels: sources that have them, and labels of folders and columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.labels.class_folders import class_folders
from vgx_builtin.labels.values import (
    LONGEST,
    NO_LABEL,
    ONE,
    Labels,
    expect_classes,
    natural,
    numbered,
)
from vgx_builtin.rows.columns import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

KINDS = ("int", "uint", "float", "bool", "string", "large_string", "null")


@dataclass(frozen=True)
class LabelledSource:
    """Images of a source, each with a label."""

    source: vgx.Encoded
    rows: Sequence[int]  # the images of the source that are taken
    labels: Labels  # of all its images
    fingerprint: str  # changes when the images or the labels do

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels."""
        return self.labels.names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return image `index`, as the source does. Raises `vgx.Dropped` if it has no label."""
        if self.label(index) == NO_LABEL:
            raise vgx.Dropped("without a label")
        return self.source[self.rows[index]]

    def encoded(self, index: int) -> bytes:
        """Return the file of image `index`, as the source does."""
        return self.source.encoded(self.rows[index])

    def label(self, index: int) -> int:
        """Return the label of image `index`, or `NO_LABEL`."""
        return self.labels.numbers[self.rows[index]]

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many files are left out, by reason."""
        return self.source.left_out if isinstance(self.source, vgx.Counted) else {}


def evenly(numbers: Sequence[int], limit: int | None) -> Sequence[int]:
    """Return which images a limit takes, in their order: the first ones of each label in turn.

    Those without a label are not taken. Without a limit all images are.
    """
    if limit is None:
        return range(len(numbers))
    before = Counter[int]()
    turns = []
    for row, label in enumerate(numbers):
        if label != NO_LABEL:
            turns.append((before[label], label, row))
            before[label] += 1
    return sorted(row for _, _, row in sorted(turns)[:limit])


def folder_labels(names: Sequence[str], where: str, image: vgx.ImageSpec) -> Labels:
    """Return the labels of files by the folders in their names; a file in none has no label.

    Raises `RecipeError` for a wrong `image.classes`, and `DataError` without folders.
    """
    folders = class_folders(names)
    order = sorted({folder for folder in folders if folder is not None}, key=natural)
    if not order:
        raise vgx.DataError(f"{where}: all images lie beside each other, in no folders below it")
    expect_classes(where, order, image)
    number: dict[str | None, int] = {folder: index for index, folder in enumerate(order)}
    return Labels([number.get(folder, NO_LABEL) for folder in folders], order)


def column_of_labels(rows: Rows, column: str, where: str, image: vgx.ImageSpec) -> Labels:
    """Return the labels in a column.

    Raises `DataError` for a column that holds no labels, and `RecipeError` for a wrong
    `image.classes`.
    """
    import datasets

    if column not in rows.features:
        raise vgx.DataError(f"{where}: no column '{column}'; it has {', '.join(rows.features)}")
    kind, where = rows.features[column], f"{where}: label: {column}"
    if isinstance(kind, datasets.ClassLabel):
        expect_classes(where, kind.names, image)
        values = rows.values(column)
        numbers = [NO_LABEL if value is None or value < 0 else value for value in values]
        return Labels(numbers, kind.names)
    if not (isinstance(kind, datasets.Value) and kind.dtype.rstrip("0123456789") in KINDS):
        raise vgx.DataError(f"{where}: the column holds {str(kind)[:LONGEST]}, not labels; {ONE}")
    return numbered(rows.values(column), where, image)
