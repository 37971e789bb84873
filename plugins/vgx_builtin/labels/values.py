"""Labels as they are written, words or numbers, as numbers from 0 with names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import vgx

LONGEST = 100
"""Words of more characters are no names of classes."""
NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d+([eE][+-]?\d+)?)?")
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")
NO_LABEL = -1
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


def natural(text: str) -> tuple[list[str | int], str]:
    """Return what sorts texts as people do: a number in them counts by its value, 2 before 10."""
    # Texts and numbers take turns, so a text is never compared with a number.
    pieces = re.split(r"(\d+)", text)
    return [int(piece) if piece.isdecimal() else piece for piece in pieces], text


def expect_classes(where: str, names: Sequence[str], image: vgx.ImageSpec, hint: str = "") -> None:
    """Raise `RecipeError` unless the recipe knows how many classes there are; it lists them."""
    if image.classes != len(names):
        rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
        listed = ", ".join(name[:LONGEST] for name in names[:10])
        there = "there is 1 class" if len(names) == 1 else f"there are {len(names)} classes"
        raise vgx.RecipeError(
            f"{where}: {there} ({listed}{rest}), and image.classes is {image.classes}; "
            f"set image.classes={len(names)}{hint}"
        )


def numbered(values: Iterable[object], where: str, image: vgx.ImageSpec) -> Labels:
    """Return values as labels, `where` is their name in messages.

    Whole numbers from 0 to `image.classes` - 1 are labels already. Other numbers, words and truth
    values are numbered in their natural order. `None`, an empty text and NaN are no label; -1 is
    none where the others are labels already. Raises `DataError` for values that are no labels, and
    `RecipeError` for a wrong `image.classes`.
    """
    known = _whole([_cleaned(value, where) for value in values], where)
    distinct = {value for value in known if value is not None}
    if not distinct:
        raise vgx.DataError(f"{where}: no image has a label")
    if _are_labels({value for value in distinct if isinstance(value, int)}, distinct, image):
        numbers = [value if isinstance(value, int) else NO_LABEL for value in known]
        return Labels(numbers, [*map(str, range(image.classes))])
    order = sorted(distinct, key=lambda value: (_value(str(value)), natural(str(value))))
    missing = f" (or {len(order) - 1}, if -1 means no label)" if {-1, 0} <= distinct else ""
    expect_classes(where, [str(value) for value in order], image, missing)
    number: dict[int | str | None, int] = {value: index for index, value in enumerate(order)}
    number[None] = NO_LABEL
    return Labels([number[value] for value in known], [str(value) for value in order])


def _are_labels(whole: set[int], distinct: set[int | str], image: vgx.ImageSpec) -> bool:
    """Return whether values are numbers from 0 to `image.classes` - 1, or -1 beside these."""
    if len(whole) < len(distinct) or not -1 <= min(whole) <= max(whole) < image.classes:
        return False
    # -1 is a class when it has no 0 beside it (-1 and 1), or when there are as many values.
    return -1 not in whole or (0 in whole and len(whole) != image.classes)


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
    numbers = not texts or (texts == known and all(map(NUMBER.fullmatch, texts)))
    if numbers and (fractions := [value for value in known if float(value) % 1]):
        many = f"numbers with fractions, such as {min(fractions)}, which are no classes"
        raise vgx.DataError(f"{where}: it holds {many}; {ONE}")
    if not (numbers and all(map(PLAIN.fullmatch, texts))):  # the zeros of "007" belong to the name
        return [None if value is None else str(value) for value in values]
    whole = {v: int(v.partition(".")[0] if isinstance(v, str) else v) for v in known}
    return [None if value is None else whole[value] for value in values]


def _value(text: str) -> float:
    """Return the value of a number, so that -1 stands before 1; all words stand behind numbers."""
    return float(text) if NUMBER.fullmatch(text) else float("inf")
