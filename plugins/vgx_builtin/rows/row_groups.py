"""Row groups of parquet files, read as a whole, and what the files say of themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import vgx
from vgx_builtin.rows.pages import LARGE
from vgx_builtin.rows.parquet import FEWER, ParquetFile, ParquetRows, Piece, batches, chunks_of

GROUP_BYTES = 2**29
"""Row groups with larger images are not read as a whole."""


def footers(rows: ParquetRows) -> str:
    """Return a hash of the rows and of the footers of their files: not of their places."""
    digest = hashlib.sha256()
    for file in dict.fromkeys(piece.file for piece in rows.parts):
        digest.update(footer(file))
    for piece in rows.parts:
        digest.update(f"|{piece.group} {piece.first} {piece.count}".encode())
    return digest.hexdigest()


def footer(file: ParquetFile) -> bytes:
    """Return the bytes that describe a file, at its end. Raises `DataError`."""
    with file.open() as opened:
        end = opened.seek(0, os.SEEK_END)
        opened.seek(max(end - 8, 0))
        size = int.from_bytes(opened.read(4), "little")
        opened.seek(max(end - 8 - size, 0))
        return opened.read(size)


@dataclass(frozen=True)
class GroupRows:
    """The rows of one row group."""

    piece: Piece
    features: Mapping[str, Any]

    def __len__(self) -> int:
        return self.piece.count

    def size(self, column: str) -> int:
        """Return the bytes of a column, as its footer says."""
        chunks = chunks_of(self.piece, column)
        return sum(int(chunk.total_uncompressed_size) for chunk in chunks)

    def cells(self, column: str) -> list[Any]:
        """Return the values of a column, which are then in memory; equal ones are there once.

        Raises `DataError` when they cannot be read, or take more memory than the footer says.
        """
        piece, values, shared = self.piece, list[Any](), _Shared()
        what = f"{piece.file.name}: row group {piece.group}"
        most, end = self.size(column) + LARGE, piece.first + piece.count
        try:
            for batch in batches(piece, column):
                values += [shared.of(cell) for cell in batch.to_pylist()]
                if shared.bytes > most:
                    raise vgx.DataError("more bytes than its footer says; not read")
                if len(values) >= end:
                    break
        except vgx.DataError as error:
            reason = str(error).removeprefix(f"{piece.file.name}: ")
            raise vgx.DataError(f"{what}: {reason}") from error
        if len(values) < end:
            raise vgx.DataError(f"{what}: {FEWER}")
        return values[piece.first : end]

    def require_small(self, column: str) -> None:
        """Raise `DataError` for a row group that is too large to be read as a whole."""
        if (size := self.size(column)) > GROUP_BYTES:
            what = f"{self.piece.file.name}: row group {self.piece.group} has {size:,} bytes"
            message = f"{what}, and at most {GROUP_BYTES:,} are read as a whole"
            raise vgx.DataError(f"{message}; vgx pack writes smaller ones")

    def values(self, column: str) -> Iterator[Any]:
        """Yield the values of a column."""
        return ParquetRows([self.piece], self.features).values(column)


class _Shared:
    """Values whose bytes, or letters, are in memory once, however often they come."""

    def __init__(self) -> None:
        self.known, self.bytes = dict[bytes | str, bytes | str](), 0

    def of(self, value: Any) -> Any:
        """Return a value like this one."""
        if isinstance(value, dict):
            return {key: self.of(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner) for inner in value]
        if not isinstance(value, bytes | str):
            return value
        if value not in self.known:
            self.known[value] = value
            self.bytes += len(value)
        return self.known[value]
