"""The images in the rows of a data set."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.columns import Cells
from vgx_builtin.image_files import NonRgb, decode, read, read_bytes

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
        return found if isinstance(found, bytes) else read_bytes(found, name)

    def _find(self, index: int) -> tuple[bytes | Path, str]:
        """Return the bytes of an image or its file, and its name in messages."""
        cell = self.cells[index]
        data, path = (cell["bytes"], cell["path"]) if isinstance(cell, dict) else (cell, None)
        if not data and not path:
            raise vgx.Dropped("empty")
        name = f"row {self.first + index}" + (f" ({path})" if path else "")
        if isinstance(data, bytes) and data:
            return data, name
        if isinstance(path, str):
            for folder in self.folders:
                file = Path(os.path.realpath(folder / path))
                if file.is_relative_to(os.path.realpath(folder)):
                    return file, name
        raise vgx.DataError(f"{name}: no image in the row, and no file of this data set")
