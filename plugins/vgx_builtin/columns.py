"""The columns of a data set of images in rows, from the hub or from local files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import vgx


class Cells(Protocol):
    """The images of a column, still encoded: {"bytes", "path"}, or None."""

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

    def values(self, column: str, count: int) -> list[Any]:
        """Return the first values of a column."""


class LibraryRows:
    """The rows of a `datasets.Dataset`."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.features = rows, rows.features

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: str) -> Cells:
        """Return the images of a column, still encoded."""
        import datasets

        rows = self.rows.select_columns([column])
        if isinstance(self.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        return _LibraryCells(rows, column)

    def values(self, column: str, count: int) -> list[Any]:
        """Return the first values of a column."""
        values: list[Any] = self.rows.select_columns([column])[:count][column]
        return values


class _LibraryCells:
    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def __getitem__(self, index: int) -> Any:
        return self.rows[index][self.column]


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


def image_column(features: Mapping[str, Any], wanted: str | None, path: str) -> str:
    """Return the name of the column of images. Raises `DataError` when it is not clear."""
    where = f"dataset huggingface: {path}"
    names = [name for name, kind in features.items() if _is_image(kind)]
    if wanted is not None:
        if wanted not in features:
            raise vgx.DataError(f"{where}: no column '{wanted}'; it has {', '.join(features)}")
        if wanted not in names:
            raise vgx.DataError(f"{where}: column '{wanted}' holds {features[wanted]}, not images")
        names = [wanted]
    if not names:
        raise vgx.DataError(f"{where}: no column holds images; it has {', '.join(features)}")
    if len(names) > 1:
        several = ", ".join(names)
        raise vgx.DataError(f"{where}: several columns hold images: {several}; set dataset.column")
    return names[0]


def _is_image(kind: Any) -> bool:
    import datasets

    bare = {"bytes", "path"}  # in a parquet file that the library did not write
    return isinstance(kind, datasets.Image) or (isinstance(kind, dict) and set(kind) == bare)
