"""Zip files of images: looked at before they are read, so that none becomes any size."""

from __future__ import annotations

import threading
import weakref
import zipfile
import zlib
from pathlib import Path
from zipfile import BadZipFile

import vgx
from vgx_builtin.image_files import MAX_BYTES, described, open_regular

MAX_TABLE = 2**24
"""The largest table about the images in a zip, in bytes; the library `datasets` reads it."""
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def check_zip(file: Path) -> None:
    """Raise `DataError` for a zip that is damaged, or that has a table of a large size in it."""
    try:
        with open_regular(file, file.name) as opened, zipfile.ZipFile(opened) as archive:
            members = archive.infolist()
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise vgx.DataError(f"{file.name}: {described(error)}") from error
    for member in members:
        place = f"{member.filename} in {file.name}"
        table = Path(member.filename).name in TABLES
        if member.file_size > (MAX_TABLE if table else MAX_BYTES):
            raise vgx.DataError(f"{place}: {member.file_size:,} bytes are too many")
        # Python's own reader unpacks other methods in one piece, to any size.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise vgx.DataError(f"{place}: compressed in a way that is not read; zip it anew")


class Archives:
    """Open zip files: each is opened once."""

    def __init__(self) -> None:
        self.opened, self.lock = dict[Path, zipfile.ZipFile](), threading.Lock()

    def read(self, file: Path, member: str, name: str) -> bytes:
        """Return the bytes of a file in a zip; `name` is its name in messages.

        Raises `DataError` when it cannot be read.
        """
        try:
            with self.lock:
                if file not in self.opened:
                    check_zip(file)
                    opened = open_regular(file, file.name)
                    weakref.finalize(self, opened.close)
                    self.opened[file] = zipfile.ZipFile(opened)
                archive = self.opened[file]
            # Not more than it says: or else a small member may unpack to any size.
            with archive.open(member) as image:
                return image.read(archive.getinfo(member).file_size)
        except (LookupError, OSError, RuntimeError, ValueError, zlib.error, BadZipFile) as error:
            raise vgx.DataError(f"{name}: {described(error)}") from error
