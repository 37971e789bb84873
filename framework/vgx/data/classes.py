"""The classes of a data set: what its labels are called, and how many images have each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vgx.data.decode import printable
from vgx.errors import DataError, RecipeError
from vgx.output import short
from vgx.parts.base import near
from vgx.parts.kinds import Labelled, Named, Source
from vgx.parts.values import ImageSpec

LONGEST = 100  # characters of a name
LISTED = 10  # classes in a message
KEPT = 10_000  # classes in `environment.json`

Classes = list[tuple[str, int]]  # the name of each label, and how many images have it


def names_of(source: Source, image: ImageSpec) -> tuple[str, ...]:
    """Return the names of a source's labels; none when the labels are not used or have no names.

    Raises `DataError` when there are not as many as `image.classes`.
    """
    if not (image.classes and isinstance(source, Named)):
        return ()
    names = tuple(printable(name)[:LONGEST] for name in source.classes)
    if len(names) != image.classes:
        text = f"there are {len(names):,} classes ({listed(names)})"
        advice = f"image.classes is {image.classes}; set image.classes={len(names)}"
        raise DataError(f"the data set: {text}, and {advice}")
    return names


def counted(labels: Iterable[int], image: ImageSpec, names: Sequence[str] = ()) -> Classes:
    """Return each class of images with these labels; without names the label is its own name."""
    numbers: NDArray[np.int64] = np.fromiter(labels, np.int64)
    counts = np.bincount(numbers, minlength=image.classes).tolist()
    return list(zip(names or map(str, range(image.classes)), counts, strict=False))


def classes_of(source: Source, image: ImageSpec) -> Classes:
    """Return the classes of a source before any image is decoded; none without labels."""
    if not (image.classes and isinstance(source, Labelled)):
        return []
    labels = (source.label(index) for index in range(len(source)))
    # An image that will be left out may have any label.
    usable = (label for label in labels if 0 <= label < image.classes)
    return counted(usable, image, names_of(source, image))


def label_called(wanted: str | int, names: Sequence[str]) -> int:
    """Return the label of the class with this name, or with this number if none has that name.

    Raises `RecipeError`, which lists classes, when there is none, or several of this name.
    """
    text, numbers = str(wanted).strip(), range(len(names))
    if isinstance(wanted, int):
        same = [label for label in numbers if label == wanted]
    else:
        small = text.casefold()
        same = [label for label in numbers if names[label] == text]
        same = same or [label for label in numbers if names[label].casefold() == small]
        same = same or [label for label in numbers if str(label) == text]
    if len(same) == 1:
        return same[0]
    if same:
        labels = listed([str(label) for label in same])
        raise RecipeError(f"class '{short(text)}': the labels {labels} are called so; give one")
    hint = f"; did you mean '{close}'?" if (close := near(text, names)) else ""
    there = f"the {len(names):,} classes are {listed(names)}"
    raise RecipeError(f"no class '{short(text)}'; {there}{hint}")


def as_labels_of(
    labels: Sequence[int] | NDArray[np.int64], names: Sequence[str], of_run: Sequence[str]
) -> NDArray[np.int64]:
    """[N]  Return labels of a data set as the labels of a run whose classes have the same names.

    Without names they are the same numbers. Raises `RecipeError` for a class that the run lacks.
    """
    numbers: NDArray[np.int64] = np.asarray(labels, np.int64)
    if not len(names):
        return numbers
    return np.array([label_called(name, of_run) for name in names], np.int64)[numbers]


def listed(texts: Sequence[str], most: int = LISTED) -> str:
    """Return the first texts of a list as a text, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(islice(texts, most)) + more


def summary(classes: Classes, most: int = LISTED) -> str:
    """Return the names of classes and their counts as a line of text."""
    text = listed([f"{name} ({count:,})" for name, count in classes], most)
    empty = [name for name, count in classes if not count]
    without = f"; without images: {listed(empty, most)}" if empty else ""
    return f"{len(classes):,} classes: {text}{without}"
