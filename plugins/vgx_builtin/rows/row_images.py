"""The images in the rows of a data set."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import vgx
from vgx_builtin.files.image_decoding import decode, read
from vgx_builtin.files.image_files import NonRgb, open_regular, whole
from vgx_builtin.files.zips import Zip
from vgx_builtin.rows.columns import Cells

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
    channels: int  # of the recipe: an array of as many is never left out
    fingerprint: str
    first: int = 0  # the number of the first row in the data set
    archives: dict[Path, Zip] = field(default_factory=dict)  # those that rows have named
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image as it is, rotated as its EXIF data say, or an array of numbers.

        Raises `vgx.Dropped` for an image that is left out, and `DataError` for one that cannot be
        read.
        """
        found, name = self._find(index)
        if isinstance(found, np.ndarray):
            return self._kept(found)
        if isinstance(found, Path):
            return read(found, name, self.non_rgb, self.channels)
        with found:
            return decode(found, name, self.non_rgb, self.channels)

    def encoded(self, index: int) -> bytes:
        """Return the file of an image as it is; of numbers, which are in none, no bytes.

        Raises as above.
        """
        found, name = self._find(index)
        if isinstance(found, np.ndarray):
            return b""
        with open_regular(found, name) if isinstance(found, Path) else found as file:
            return whole(file, name)

    def _find(self, index: int) -> tuple[IO[bytes] | Path | NDArray[Any], str]:
        """Return where an image is, and its name in messages."""
        cell, name = self.cells[index], f"row {self.first + index}"
        if isinstance(cell, np.ndarray):
            return cell, name
        if isinstance(cell, dict):
            data, path = cell.get("bytes"), cell.get("path")
        else:
            data, path = (None, cell) if isinstance(cell, str) else (cell, None)
        if not data and not path:
            raise vgx.Dropped("empty")
        name += f" ({path})" if path else ""
        if isinstance(data, bytes) and data:
            return io.BytesIO(data), name
        if isinstance(path, str):
            member, _, archive = path.removeprefix("zip://").rpartition("::")
            in_archive = bool(archive) and path.startswith("zip://")
            if file := self._own(archive if in_archive else path):
                if not in_archive:
                    return file, name
                with self.lock:
                    if file not in self.archives:
                        self.archives[file] = Zip(file)
                return self.archives[file].reader([member])(member), name
        advice = "" if self.folders else "; set dataset.path to the folder of its files"
        raise vgx.DataError(f"{name}: no image in the row, and no file of this data set{advice}")

    def _kept(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array. Raises `vgx.Dropped` for one that is not RGB, as for other images."""
        channels = array.shape[2] if array.ndim == 3 else 1
        reasons = {1: "greyscale", 4: "with alpha"}
        if self.non_rgb == "skip" and channels != self.channels and channels in reasons:
            grey = ("image.channels=1",) if channels == 1 else ()
            raise vgx.Dropped(reasons[channels], "dataset.non_rgb=convert", *grey)
        return array

    def _own(self, path: str) -> Path | None:
        """Return the file of the data set that a row names, if there can be one."""
        files = [(Path(os.path.realpath(each / path)), each) for each in self.folders]
        inside = [file for file, each in files if file.is_relative_to(os.path.realpath(each))]
        return next((file for file in inside if os.path.lexists(file)), (*inside, None)[0])
