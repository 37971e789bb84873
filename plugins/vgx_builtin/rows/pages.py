"""The pages of a parquet file: how large each becomes when it is unpacked, before it is unpacked.

The format, and the Thrift encoding of its page headers:
https://parquet.apache.org/docs/file-format/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

import vgx

LARGE = 2**24
"""Pages up to this size in bytes are always unpacked, and rows are read in batches of this size."""
MOST = 20
"""How many times its size in the file a larger page may have; images shrink far less."""

_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}  # bytes of a value, by its type in Thrift
_NUMBERS, _TEXT, _STRUCT = (4, 5, 6), 8, 12


def largest_page(file: IO[bytes], chunk: Any) -> int:
    """Return the size in bytes of the largest unpacked page of a column chunk.

    `chunk` is a `pyarrow.parquet.ColumnChunkMetaData`. Raises `DataError` for a page that becomes
    much larger than it is in the file, and for headers that cannot be read.
    """
    largest = 0
    for packed, unpacked in _pages(file, chunk):
        if unpacked > max(LARGE, MOST * packed):
            raise vgx.DataError(f"a page of {packed:,} bytes that becomes {unpacked:,}; not read")
        largest = max(largest, unpacked)
    return largest


def span(chunk: Any) -> tuple[int, int]:
    """Return where a column chunk begins in its file, and where it ends."""
    start: int = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return start, start + chunk.total_compressed_size


def _pages(file: IO[bytes], chunk: Any) -> Iterator[tuple[int, int]]:
    """Yield the size of each page in the file, and unpacked."""
    start, end = span(chunk)
    file.seek(start)
    while file.tell() < end:
        header = _struct(file)
        unpacked, packed = header.get(2, -1), header.get(3, -1)
        if unpacked < 0 or packed < 0:
            raise vgx.DataError("a page without a size; the file is damaged")
        yield packed, unpacked
        file.seek(packed, os.SEEK_CUR)


def _struct(file: IO[bytes], depth: int = 0) -> dict[int, int]:
    """Return the whole numbers of a struct by their fields; other values are passed over."""
    numbers, field = dict[int, int](), 0
    while kind := _byte(file):
        field = field + (kind >> 4) if kind >> 4 else _number(file)
        kind &= 15
        if kind in _NUMBERS:
            numbers[field] = _number(file)
        elif kind == _TEXT:
            file.seek(_unsigned(file), os.SEEK_CUR)
        elif kind == _STRUCT and depth < 4:
            _struct(file, depth + 1)
        elif kind in _FIXED:
            file.seek(_FIXED[kind], os.SEEK_CUR)
        else:  # headers of pages have nothing else
            raise vgx.DataError("a page whose header can't be read; the file is damaged")
    return numbers


def _number(file: IO[bytes]) -> int:
    value = _unsigned(file)
    return value >> 1 ^ -(value & 1)


def _unsigned(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise vgx.DataError("a page whose header can't be read; the file is damaged")


def _byte(file: IO[bytes]) -> int:
    data = file.read(1)
    if not data:
        raise vgx.DataError("the file ends in a page")
    return data[0]
