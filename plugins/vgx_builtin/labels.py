"""Labels of images: values of any kind as numbers with names, and sources that have them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.columns import Rows

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 100
"""Words of more characters are no names of classes."""
NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d+([eE][+-]?\d+)?)?")
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")
NO_LABEL = -1
KINDS = ("int", "uint", "float", "bool", "string", "large_string", "null")
ONE = "give each image one label: a word, a whole number or a truth value"


@dataclass(frozen=True)
class Labels:
    """The label of each image, `NO_LABEL` where it has none, and the names of the labels."""

    numbers: Sequence[int]
    names: Sequence[str]

    def fingerprint(self) -> str:
        """Return a hash of the labels and of their names."""
        text = "\n".join([*map(str, self.numbers), *self.names])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class LabelledSource:
    """Images of a source, each with a label."""

    source: vgx.Source
    rows: Sequence[int]  # the images of the source that are taken
    labels: Labels  # of all its images
    fingerprint: str  # changes when the images or the labels do

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels."""
        return self.labels.names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image:
        """Return image `index`, as the source does. Raises `vgx.Dropped` if it has no label."""
        if self.label(index) == NO_LABEL:
            raise vgx.Dropped("without a label")
        return self.source[self.rows[index]]

    def label(self, index: int) -> int:
        """Return the label of image `index`, or `NO_LABEL`."""
        return self.labels.numbers[self.rows[index]]


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


def natural(text: str) -> tuple[list[str | int], str]:
    """Return what sorts texts as people do: a number in them counts by its value, 2 before 10."""
    # Texts and numbers take turns, so a text is never compared with a number.
    pieces = re.split(r"(\d+)", text)
    return [int(piece) if piece.isdecimal() else piece for piece in pieces], text


def expect_classes(where: str, names: Sequence[str], image: vgx.ImageSpec) -> None:
    """Raise `RecipeError` unless the recipe knows how many classes there are; it lists them."""
    if image.classes != len(names):
        rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
        listed = ", ".join(name[:LONGEST] for name in names[:10])
        there = "there is 1 class" if len(names) == 1 else f"there are {len(names)} classes"
        raise vgx.RecipeError(
            f"{where}: {there} ({listed}{rest}), and image.classes is {image.classes}; "
            f"set image.classes={len(names)}"
        )


def numbered(values: Sequence[object], where: str, image: vgx.ImageSpec) -> Labels:
    """Return values as labels, `where` is their name in messages.

    Whole numbers from 0 to `image.classes` - 1 are labels already. Other numbers, words and truth
    values are numbered in their natural order. `None`, an empty text and NaN are no label. Raises
    `DataError` for values that are no labels, and `RecipeError` for a wrong `image.classes`.
    """
    known = _whole([_cleaned(value, where) for value in values], where)
    distinct = {value for value in known if value is not None}
    if not distinct:
        raise vgx.DataError(f"{where}: no image has a label")
    whole = [value for value in distinct if isinstance(value, int)]
    if len(whole) == len(distinct) and min(whole) >= 0 and max(whole) < image.classes:
        numbers = [value if isinstance(value, int) else NO_LABEL for value in known]
        return Labels(numbers, [*map(str, range(image.classes))])
    if len(whole) == len(distinct):
        order: list[int | str] = [*sorted(whole)]
    else:
        order = sorted(distinct, key=lambda value: (_value(str(value)), natural(str(value))))
    expect_classes(where, [str(value) for value in order], image)
    number: dict[int | str | None, int] = {value: index for index, value in enumerate(order)}
    number[None] = NO_LABEL
    return Labels([number[value] for value in known], [str(value) for value in order])


def _cleaned(value: object, where: str) -> int | str | float | None:
    """Return a label as it was meant. Raises `DataError` for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124 - NaN
    if value is None or isinstance(value, str):
        text = unicodedata.normalize("NFC", (value or "").strip())
        if len(text) > LONGEST:
            words = f"texts such as '{text[:60]}...', not names of classes"
            raise vgx.DataError(f"{where}: it holds {words}; {ONE}")
        return text or None
    several = "several values for one image" if isinstance(value, list | tuple | dict) else "values"
    raise vgx.DataError(f"{where}: it holds {several} ({str(value)[:60]}), not labels; {ONE}")


def _whole(values: Sequence[int | str | float | None], where: str) -> list[int | str | None]:
    """Return numbers as whole ones, also those that are written as texts; or all values as words.

    Raises `DataError` for numbers with fractions.
    """
    known = {value for value in values if value is not None}
    texts = {value for value in known if isinstance(value, str)}
    if texts and not (texts == known and all(map(NUMBER.fullmatch, texts))):
        return [None if value is None else str(value) for value in values]
    if fractions := [value for value in known if float(value) % 1]:
        many = f"numbers with fractions, such as {min(fractions)}, which are no classes"
        raise vgx.DataError(f"{where}: it holds {many}; {ONE}")
    if not all(map(PLAIN.fullmatch, texts)):  # the zeros of "007" belong to the name
        return [value if value is None else str(value) for value in values]
    whole = {v: int(v.partition(".")[0] if isinstance(v, str) else v) for v in known}
    return [None if value is None else whole[value] for value in values]


def _value(text: str) -> float:
    """Return the value of a number, so that -1 stands before 1; all words stand behind numbers."""
    return float(text) if NUMBER.fullmatch(text) else float("inf")


def folder_labels(names: Sequence[str], where: str, image: vgx.ImageSpec) -> Labels:
    """Return the labels of files by the first folder in their names; a file in none has no label.

    Raises `RecipeError` for a wrong `image.classes`, and `DataError` without folders.
    """
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
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
        values = rows.values(column, len(rows))
        numbers = [NO_LABEL if value is None or value < 0 else value for value in values]
        return Labels(numbers, kind.names)
    if not (isinstance(kind, datasets.Value) and kind.dtype.rstrip("0123456789") in KINDS):
        raise vgx.DataError(f"{where}: the column holds {str(kind)[:LONGEST]}, not labels; {ONE}")
    return numbered(rows.values(column, len(rows)), where, image)
