"""Rows of parquet files, here or on the hub, read batch by batch: nothing is copied or kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import vgx
from vgx_builtin.files.image_files import described, open_regular
from vgx_builtin.rows.columns import Cells, Parts, one_by_one
from vgx_builtin.rows.pages import LARGE, largest_page, span

ROWS = 64
"""Rows that are read at once, if they are small."""
FEWER = "fewer rows than it says; the file is damaged"


class ParquetFile(Protocol):
    """A file on this machine or elsewhere."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def open(self, first: int = 0, last: int = 0) -> IO[bytes]:
        """Open it to read it, the bytes from `first` to before `last` if that is known.

        Raises `DataError` or `HubError`.
        """


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: Path

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.path.name

    def open(self, first: int = 0, last: int = 0) -> IO[bytes]:
        """Open it to read it. Raises `DataError`."""
        del first, last
        return open_regular(self.path, self.name)


@dataclass(frozen=True)
class Piece:
    """Neighbouring rows of one row group of a file."""

    file: ParquetFile
    about: Any  # pyarrow.parquet.FileMetaData
    group: int
    first: int  # row of the group
    count: int

    def __len__(self) -> int:
        return self.count

    def slice(self, offset: int, length: int) -> Piece:
        """Return some of the rows."""
        return replace(self, first=self.first + offset, count=length)


class ParquetRows(Parts[Piece]):
    """The rows of a split, in the order of its files."""

    def __init__(self, pieces: list[Piece], features: Mapping[str, Any]) -> None:
        super().__init__(pieces)
        self.features = features

    def cells(self, column: str) -> Cells:
        """Return the images of a column, still encoded."""
        return _Cells(self, column)

    def values(self, column: str) -> Iterator[Any]:
        """Yield the values of a column. Raises `DataError` when they cannot be read."""
        for piece in self.parts:
            start, end = 0, piece.first + piece.count
            for batch in batches(piece, column):
                yield from one_by_one(batch[max(piece.first - start, 0) : max(end - start, 0)])
                start += len(batch)
                if start >= end:
                    break
            if start < end:
                raise vgx.DataError(f"{piece.file.name}: {FEWER}")


class _Cells:
    """The values of a column by row. Each thread reads forward through a row group of its own."""

    def __init__(self, rows: ParquetRows, column: str) -> None:
        self.rows, self.column, self.local = rows, column, threading.local()

    def __getitem__(self, index: int) -> Any:
        """Return a value. Raises `DataError` when it cannot be read."""
        piece, offset = self.rows.at(index)
        row = piece.first + offset
        reader: _Reader | None = getattr(self.local, "reader", None)
        if reader is None or reader.piece is not piece or row < reader.start:
            reader = self.local.reader = _Reader(piece, self.column)
        try:
            return reader.value(row)
        except vgx.DataError as error:
            raise vgx.DataError(f"row {index}: {error}") from error.__cause__


class _Reader:
    """Reads a row group from its first row to its last."""

    def __init__(self, piece: Piece, column: str) -> None:
        self.piece, self.batches = piece, batches(piece, column)
        self.start, self.batch = 0, ()
        self.fault = f"{piece.file.name}: {FEWER}"

    def value(self, row: int) -> Any:
        while row >= self.start + len(self.batch):
            self.start += len(self.batch)
            self.batch = ()
            try:
                self.batch = next(self.batches)
            except StopIteration:  # now, or when an earlier row could not be read
                raise vgx.DataError(self.fault) from None
            except vgx.DataError as error:
                self.fault = str(error)
                raise
        return self.batch[row - self.start].as_py()


def chunks_of(piece: Piece, column: str) -> list[Any]:
    """Return what a footer says of a column in a row group. Raises `DataError`."""
    group = piece.about.row_group(piece.group)
    try:
        chunks = [group.column(index) for index in range(group.num_columns)]
        return [each for each in chunks if f"{each.path_in_schema}.".startswith(f"{column}.")]
    # The library raises many kinds of error for a damaged footer.
    except Exception as error:
        raise vgx.DataError(f"{piece.file.name}: {described(error)}") from error


def batches(piece: Piece, column: str) -> Iterator[Any]:
    """Yield the values of a column in a row group, as arrays. Raises `DataError`."""
    import pyarrow.parquet

    name, chunks = piece.file.name, chunks_of(piece, column)
    spans = [span(chunk) for chunk in chunks]
    first, last = (min(spans)[0], max(end for _, end in spans)) if spans else (0, 0)
    with piece.file.open(first, last) as file:
        try:
            pages = [largest_page(file, chunk) for chunk in chunks]
            rows = min(max(LARGE // max(*pages, 1, 1), 1), ROWS)
            reader = pyarrow.parquet.ParquetFile(file, metadata=piece.about, buffer_size=2**20)
            # Only the buffered stream reads a row group page by page.
            for batch in reader.iter_batches(rows, [piece.group], [column], use_threads=False):
                if column not in batch.schema.names:
                    raise vgx.DataError(f"{name}: no column '{column}'")
                yield batch.column(column)
        except (vgx.DataError, vgx.HubError, MemoryError):
            raise
        # The library raises many kinds of error for a damaged file.
        except Exception as error:
            raise vgx.DataError(f"{name}: {described(error)}") from error
