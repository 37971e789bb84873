"""The columns of a data set of images in rows, from the hub or from local files."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T", bound=Sized)  # neighbouring rows


class Cells(Protocol):
    """The images of a column, still encoded: {"bytes", "path"}, bytes, a path, numbers, or None."""

    def __getitem__(self, index: int) -> Any:
        """Return one of them. Raises `DataError` when it cannot be read."""


class Rows(Protocol):
    """Rows, and what each column holds, in the words of the library `datasets`."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Return what each column holds."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def cells(self, column: str) -> Cells:
        """Return the images of a column, still encoded."""

    def values(self, column: str) -> Iterator[Any]:
        """Yield the values of a column: of a small file, all may be much larger than it."""


class Parts(Generic[T]):
    """Rows in parts, one after the other."""

    def __init__(self, parts: Sequence[T]) -> None:
        self.parts, self.ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def at(self, index: int) -> tuple[T, int]:
        """Return the part that has a row, and the place of the row in it."""
        number = bisect_right(self.ends, index)
        part = self.parts[number]
        return part, index - (self.ends[number] - len(part))


class LibraryRows:
    """The rows of a `datasets.Dataset`."""

    def __init__(self, rows: Any) -> None:
        # As Arrow has them: images are not decoded.
        self.rows, self.features = rows.with_format("arrow"), rows.features

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: str) -> Cells:
        """Return the images of a column, still encoded."""
        return _LibraryCells(self.rows.select_columns([column]))

    def values(self, column: str) -> Iterator[Any]:
        """Yield the values of a column."""
        return one_by_one(self.rows.select_columns([column])[:].column(0))


@dataclass(frozen=True)
class _LibraryCells:
    rows: Any  # a datasets.Dataset of one column

    def __getitem__(self, index: int) -> Any:
        return self.rows[index].column(0)[0].as_py()


@dataclass(frozen=True)
class InnerCells:
    """Values inside of the cells of a column: a field of a struct, or an item of a list."""

    cells: Cells
    inner: Sequence[str]

    def __getitem__(self, index: int) -> Any:
        """Return one of them; None where a list is too short."""
        value = self.cells[index]
        for key in self.inner:
            if isinstance(value, list):
                value = value[int(key)] if int(key) < len(value) else None
            elif value is not None:
                value = value[key]
        return value


def cells_of(rows: Rows, column: str) -> Cells:
    """Return the cells of a column, or of a part of one, such as `images.0`."""
    if column in rows.features:
        return rows.cells(column)
    outer, *inner = column.split(".")
    return InnerCells(rows.cells(outer), inner)


def one_by_one(values: Any) -> Iterator[Any]:
    """Yield the values of an array of pyarrow: in it, equal ones may be there only once."""
    return (value.as_py() for value in values)


def features_of(schema: Any) -> dict[str, Any]:
    """Return what each column of a `pyarrow.Schema` holds, in the words of `datasets`.

    What that library has written into a file is not given back to it: there, the names of classes
    may be those of files.
    """
    import datasets
    import pyarrow

    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        written = None
    features: dict[str, Any] = {}
    for field in schema:
        feature = written.get(field.name) if isinstance(written, dict) else None
        known = feature if isinstance(feature, dict) else {}
        kind, names = known.get("_type"), known.get("names")
        if kind == "ClassLabel" and _are_names(names) and pyarrow.types.is_integer(field.type):
            features[field.name] = datasets.ClassLabel(names=names)
        elif kind == "Image" and pyarrow.types.is_binary(field.type):
            features[field.name] = datasets.Image(decode=False)
        else:
            features[field.name] = _feature(field)
    return features


def _are_names(names: Any) -> bool:
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return texts and len(set(names)) == len(names)


def _feature(field: Any) -> Any:
    import datasets
    import pyarrow

    try:
        return datasets.Features.from_arrow_schema(pyarrow.schema([field]))[field.name]
    except (ValueError, TypeError, NotImplementedError, RecursionError, pyarrow.ArrowException):
        return str(field.type)  # a type that the library does not know
