"""Rows of Arrow files on this machine, such as `save_to_disk` writes: mapped, nothing is copied.

The library `datasets` is not asked to open them: it would open what the names in `state.json` and
the classes in a schema stand for, and check no file. The format:
https://arrow.apache.org/docs/format/Columnar.html, and for its messages
https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin.files.image_files import described, open_regular
from vgx_builtin.rows.columns import Cells, Parts, features_of, one_by_one
from vgx_builtin.rows.layout import rows_of


class ArrowRows(Parts[Any]):  # pyarrow.RecordBatch
    """The rows of a split, in the order of its files."""

    def __init__(self, batches: list[Any], features: Mapping[str, Any]) -> None:
        super().__init__(batches)
        self.features = features

    def cells(self, column: str) -> Cells:
        """Return the images of a column, still encoded."""
        return _Cells(self, column)

    def values(self, column: str) -> Iterator[Any]:
        """Yield the values of a column."""
        for batch in self.parts:
            yield from one_by_one(batch.column(column))


@dataclass(frozen=True)
class _Cells:
    rows: ArrowRows
    column: str

    def __getitem__(self, index: int) -> Any:
        batch, row = self.rows.at(index)
        return batch.column(self.column)[row].as_py()


def open_arrow(splits: Mapping[str, list[Path]], wanted: str) -> ArrowRows:
    """Return the rows of a split, or of slices, as for parquet files.

    Raises `DataError` for a file that is none, `ValueError` for a split that is not there.
    """
    found = {
        split: [batch for file in files for batch in _batches(file)]
        for split, files in splits.items()
    }
    batches = rows_of(found, wanted)
    first = batches[0].schema
    if any(batch.schema != first for batch in batches):
        raise vgx.DataError("its files have different columns")
    return ArrowRows(batches, features_of(first))


def _batches(file: Path) -> list[Any]:
    """Return the record batches of a file. Raises `DataError`."""
    import pyarrow

    with open_regular(file, file.name) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not size:
            raise vgx.DataError(f"{file.name}: empty; not an Arrow file")
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    whole = pyarrow.py_buffer(mapped)
    stream = whole[8:] if whole[:6].to_pybytes() == b"ARROW1" else whole
    try:
        if any(_is_compressed(message) for message in _messages(stream)):
            raise vgx.DataError(f"{file.name}: compressed; not read. Write it as parquet")
        batches = list(pyarrow.ipc.open_stream(stream))
        for batch in batches:
            batch.validate(full=True)  # or else a wrong offset is read as memory
    except (vgx.DataError, MemoryError):
        raise
    # The library raises many kinds of error for a damaged file.
    except Exception as error:
        raise vgx.DataError(f"{file.name}: {described(error)}") from error
    rows = sum(len(batch) for batch in batches)
    if rows > size:
        raise vgx.DataError(f"{file.name}: {rows:,} rows in {size:,} bytes can't be images")
    return batches


def _messages(stream: Any) -> Iterator[Any]:
    import pyarrow

    reader = pyarrow.ipc.MessageReader.open_stream(stream)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _is_compressed(message: Any) -> bool:
    """Return whether the buffers of a message are compressed: they may become any size."""
    data = message.metadata.to_pybytes()
    header = _table(data, _offset(data, 0), 2)
    if message.type == "dictionary":
        header = _table(data, header, 1)
    return message.type != "schema" and _field(data, header, 3) != 0


def _offset(data: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, field: int) -> int:
    """Return the place of a field of a table in a flatbuffer, or 0 if the table lacks it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if struct.unpack_from("<H", data, vtable)[0] < 6 + 2 * field:
        return 0
    start = int(struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0])
    return start and table + start


def _table(data: bytes, table: int, field: int) -> int:
    """Return the place of the table that is a field of a table."""
    return _offset(data, _field(data, table, field))
