"""The members of a tar file, one after another; it may be compressed."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import vgx
from vgx_builtin.files.archives import MAX_RATIO, RegularFile, require_size

BLOCK = 512
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
PIECE, _AHEAD = 2**20, 2**17  # bytes that are unpacked at once, and that are read ahead
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_MAX_HEADER = 2**16  # bytes of a name, or of what else is said about a member
_RECORD = re.compile(rb"([0-9]{1,5}) ")
_RECORDS = 64  # different ones in one header
_FREE = 2**25  # bytes that any archive may become
_OTHERS = {
    tarfile.LNKTYPE: "link", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "named pipe",
}  # fmt: skip


class Stream:
    """The bytes of a tar file, read forward; unpacked if it is compressed."""

    def __init__(self, file: RegularFile, compression: str) -> None:
        self.file, self.position, self.compression = file, 0, compression
        self.unpacked: Any = None
        if compression:
            import pyarrow as pa

            file.seek(0)
            packed = pa.PythonFile(file, mode="r")
            self.unpacked = pa.CompressedInputStream(packed, compression)

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises `DataError` when the archive ends before."""
        if self.unpacked is None:
            data = self.file.at(self.position, size)
        else:
            try:
                data = self.unpacked.read(size)
            except OSError as error:
                raise vgx.DataError(f"damaged or not complete ({error})") from error
            most = max(_FREE, MAX_RATIO * self.file.tell())
            if self.position + len(data) > most:
                raise vgx.DataError(f"becomes more than {MAX_RATIO} times as large as it is")
        self.position += len(data)
        if len(data) < size and (data or size != BLOCK):
            raise vgx.DataError("ends in the middle of a member; it is not complete")
        return data  # or nothing, at the end of an archive without the blocks that end it

    def skip_to(self, position: int) -> None:
        """Go on to a position."""
        if self.unpacked is None and position <= self.file.size:
            self.position = position
        while self.position < position:
            if not self.read(min(PIECE, position - self.position)):
                raise vgx.DataError("ends in the middle of a member; it is not complete")

    def member(self, name: str, size: int) -> bytes:
        """Return the next bytes, which are a member. Raises `DataError` for one that is too large.

        Such a member is not read to its end.
        """
        require_size(name, size, size)
        if self.unpacked is None:
            return self.read(size)
        pieces, before = list[bytes](), self.file.tell()
        for start in range(0, size, PIECE):
            pieces.append(self.read(min(PIECE, size - start)))
            # The library reads ahead a little.
            require_size(name, start + PIECE, self.file.tell() - before + _AHEAD)
        return b"".join(pieces)


class Member(NamedTuple):
    """A member of a tar file; the stream is at its first byte."""

    name: str
    why: str  # a reason to leave it out
    size: int
    position: int


def members(stream: Stream) -> Iterator[Member]:
    """Yield the files of a tar file, in their order. Raises `DataError` for a damaged one."""
    said: dict[str, str] = {}
    while (block := stream.read(BLOCK)).strip(b"\0"):  # a block of zeros is the end
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise vgx.DataError(f"damaged: {error}") from error
        if info.type in (*_LONG_NAMES, *_PAX):
            said |= _said(stream, info)
            continue
        size = int(said["size"]) if re.fullmatch("[0-9]{1,15}", said.get("size", "")) else info.size
        sparse = any(key.startswith("GNU.sparse") for key in said)
        name, said = said.get("path", info.name), {}
        if size < 0 or info.type == tarfile.GNUTYPE_SPARSE or sparse:
            raise vgx.DataError(f"{name}: a kind of member that is not read")
        has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        start, end = stream.position, stream.position + has_data * _padded(size)
        if not info.isdir():
            yield Member(name, _OTHERS.get(info.type, ""), size, start)
        stream.skip_to(end)


def _said(stream: Stream, info: tarfile.TarInfo) -> dict[str, str]:
    """Return what a header says about the next member."""
    if not 0 <= info.size <= _MAX_HEADER:
        raise vgx.DataError(f"a name or a header of {info.size:,} bytes; that is too long")
    data = stream.read(_padded(info.size))[: info.size]
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    said, place = dict[str, str](), 0
    while info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE) and place < len(data):
        found = _RECORD.match(data, place)  # "27 path=name of the file\n", 27 bytes with all
        end = place + int(found[1]) if found else 0
        if found is None or not found.end() < end <= len(data) or len(said) == _RECORDS:
            raise vgx.DataError("damaged: a header that cannot be read")
        record = data[found.end() : end - 1].decode("utf-8", "surrogateescape")
        key, _, said[key] = record.partition("=")
        place = end
    return said


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
