"""Zip files of images."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import vgx
from vgx_builtin.files.archives import Contents, RegularFile, require_size
from vgx_builtin.files.formats import HEAD
from vgx_builtin.files.image_files import digest


class Zip:
    """A zip file of images; threads unpack its members at the same time."""

    def __init__(self, path: Path, inside: str = "") -> None:
        self.path, contents = path, Contents(inside)
        try:
            self.zip = zipfile.ZipFile(RegularFile(path))
            members = self.zip.infolist()
            _refuse_overlaps(members)
        except vgx.DataError as error:
            raise vgx.DataError(f"{path}: {error}") from error
        # The library has many kinds of error for bad archives.
        except Exception as error:
            text = f"a zip file that is damaged or not complete ({error})"
            raise vgx.DataError(f"{path}: {text}") from error
        self.members = dict[str, zipfile.ZipInfo]()
        for info in members:
            if not info.is_dir():
                written = info.filename.replace("\\", "/")  # as some programs of Windows write it
                name = contents.add(written, _why_not(info), partial(self.head, info))
                if name is not None:
                    self.members[name] = info
        self.found = contents.finish(by_name=True)

    def head(self, info: zipfile.ZipInfo) -> bytes:
        """Return the first bytes of a member; none if it is damaged."""
        try:
            with self.zip.open(info) as member:
                return member.read(HEAD)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
            return b""

    def reader(self, names: Sequence[str]) -> Callable[[str], IO[bytes]]:
        """Return a function that opens a member by its name; threads may call it."""
        del names
        return self._open

    def _open(self, name: str) -> IO[bytes]:
        info = self.members.get(name)
        if info is None:
            raise vgx.DataError(f"{name}: not in {self.path}")
        require_size(name, info.file_size, info.compress_size)
        try:
            with self.zip.open(info) as member:
                return io.BytesIO(member.read(info.file_size))
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise vgx.DataError(f"{name}: damaged in the archive ({error})") from error

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a hash that changes when the archive does."""
        del names
        return digest([self.path], self.path.parent)


def _why_not(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"file of compression method {info.compress_type}"
    mode = info.external_attr >> 16
    return "link" if stat.S_ISLNK(mode) else ""


def _refuse_overlaps(members: list[zipfile.ZipInfo]) -> None:
    """Raise `DataError` when members share bytes: so a small file becomes a very large one."""
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise vgx.DataError(f"some of its members overlap, such as {info.filename}")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
