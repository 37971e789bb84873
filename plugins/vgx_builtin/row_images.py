"""The images in the rows of a data set."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.columns import Cells
from vgx_builtin.image_decoding import decode, read
from vgx_builtin.image_files import NonRgb

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class RowImages:
    """The images of a column, and those that it names by their paths."""

    cells: Cells
    count: int
    folders: tuple[Path, ...]  # a row without an image may name a file in one of these
    non_rgb: NonRgb
    fingerprint: str
    channels: int = 3

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image as it is, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out, and `DataError` for one that cannot be
        read.
        """
        cell = self.cells[index]
        data, path = (cell["bytes"], cell["path"]) if isinstance(cell, dict) else (cell, None)
        if not data and not path:
            raise vgx.Dropped("empty")
        name = f"row {index}" + (f" ({path})" if path else "")
        if isinstance(data, bytes) and data:
            return decode(io.BytesIO(data), name, self.non_rgb, self.channels)
        if isinstance(path, str):
            for folder in self.folders:
                file = Path(os.path.realpath(folder / path))
                if file.is_relative_to(os.path.realpath(folder)):
                    return read(file, name, self.non_rgb, self.channels)
        raise vgx.DataError(f"{name}: no image in the row, and no file of this data set")
