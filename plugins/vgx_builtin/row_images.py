"""The images in the rows of a data set."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.columns import Cells
from vgx_builtin.image_files import NonRgb, decode, open_regular, read, whole
from vgx_builtin.zips import Archives

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class RowImages:
    """The images of a column, and those that it names by their paths."""

    cells: Cells
    count: int
    folders: tuple[Path, ...]  # a row without an image may name a file in one of these
    non_rgb: NonRgb
    fingerprint: str
    first: int = 0  # the number of the first row in the data set
    archives: Archives = field(default_factory=Archives)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        """Return one image, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out, and `DataError` for one that cannot be
        read.
        """
        found, name = self._find(index)
        if isinstance(found, bytes):
            return decode(io.BytesIO(found), name, self.non_rgb)
        return read(found, name, self.non_rgb)

    def encoded(self, index: int) -> bytes:
        """Return the file of an image as it is, before it is decoded. Raises as `[index]` does."""
        found, name = self._find(index)
        if isinstance(found, bytes):
            return found
        with open_regular(found, name) as file:
            return whole(file, name)

    def _find(self, index: int) -> tuple[bytes | Path, str]:
        """Return the bytes of an image or its file, and its name in messages."""
        cell = self.cells[index]
        if isinstance(cell, dict):
            data, path = cell.get("bytes"), cell.get("path")
        else:
            data, path = (None, cell) if isinstance(cell, str) else (cell, None)
        if not data and not path:
            raise vgx.Dropped("empty")
        name = f"row {self.first + index}" + (f" ({path})" if path else "")
        if isinstance(data, bytes) and data:
            return data, name
        if isinstance(path, str):
            member, _, archive = path.removeprefix("zip://").rpartition("::")
            in_archive = bool(archive) and path.startswith("zip://")
            if file := self._own(archive if in_archive else path):
                return self.archives.read(file, member, name) if in_archive else file, name
        raise vgx.DataError(f"{name}: no image in the row, and no file of this data set")

    def _own(self, path: str) -> Path | None:
        """Return the file of the data set that a row names, if there can be one."""
        files = [(Path(os.path.realpath(each / path)), each) for each in self.folders]
        inside = [file for file, each in files if file.is_relative_to(os.path.realpath(each))]
        return next((file for file in inside if os.path.lexists(file)), (*inside, None)[0])
