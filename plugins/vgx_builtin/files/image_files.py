"""Image files: opened, and whether they changed."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from PIL import Image, ImageFile

NonRgb = Literal["skip", "convert"]

MAX_PIXELS = 2**26
"""Images of more pixels are not decoded: 8,192 x 8,192, 256 MiB in memory."""
POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has not fetched."""
IS_POINTER = "a Git LFS pointer and not the file itself; git lfs pull fetches it"
MAX_BYTES = 2**28
"""Image files that are larger are not read; some decoders read a file as a whole."""
MAX_READS = 10**6
"""An image is read in fewer steps; some decoders look through a whole file byte by byte."""


def open_regular(file: Path, name: str) -> IO[bytes]:
    """Open a file to read it; `name` is its name in messages.

    Raises `DataError` when it cannot be opened, and for a folder, a pipe or a device: none of these
    is waited for.
    """
    try:
        return vgx.open_regular(file)
    except vgx.StorageError:
        raise vgx.DataError(f"{name}: not a regular file") from None
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        raise vgx.DataError(f"{name}: {getattr(error, 'strerror', error)}") from error


def open_bounded(file: Path, name: str) -> IO[bytes]:
    """Open a file of at most `MAX_BYTES` bytes as `open_regular` does; more are a `DataError`."""
    opened = open_regular(file, name)
    if (size := os.fstat(opened.fileno()).st_size) > MAX_BYTES:
        opened.close()
        raise vgx.DataError(f"{name}: {size:,} bytes; at most {MAX_BYTES:,} are read")
    return opened


def digest(files: Iterable[Path], root: Path) -> str:
    """Return a hash of the names, sizes and times of files: it changes when one of them does.

    One of the times is the ctime, which nobody can set: new content under the old name, size and
    time of change is noticed. It changes when a file is copied, or its permissions are set, too.
    Raises `DataError` for a file whose status cannot be read.
    """
    sha256 = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
        except OSError as error:
            raise vgx.DataError(f"{file}: {error.strerror}") from error
        sha256.update(os.fsencode(file.relative_to(root)))
        sha256.update(f"|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}\n".encode())
    return sha256.hexdigest()


def whole(file: IO[bytes], name: str, most: int = MAX_BYTES) -> bytes:
    """Return the content of an open file. Raises `DataError` for more than `most` bytes."""
    data = file.read(most + 1)
    if len(data) > most:
        raise vgx.DataError(f"{name}: more than {most:,} bytes; no more are read")
    return data


class FewReads:
    """The file of an image, which is not read on for ever.

    In all, as many bytes are read as it has, and `again` more.
    """

    def __init__(self, file: IO[bytes], again: float = math.inf) -> None:
        self.file, self.reads = file, 0
        self.left = again + file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read as usual. Raises `OSError` when it has been read too often."""
        data = self.file.read(size)
        self.reads, self.left = self.reads + 1, self.left - len(data)
        if self.reads > MAX_READS or self.left < 0:
            raise OSError("no image, or one that takes too long to read")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self.file.tell()


def too_many(pixels: int) -> str:
    """Return why an image is not decoded, and what to do."""
    return f"{pixels:,} pixels, and at most {MAX_PIXELS:,} are decoded: make the image smaller"


def require_few_pixels(pixels: int) -> None:
    """Raise `DataError` for an image of so many pixels that it is not decoded."""
    if pixels > MAX_PIXELS:
        raise vgx.DataError(too_many(pixels))


def hold_for_python(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Hold the whole file of an open image in memory if its decoder is one in Python.

    These read a few bytes for each pixel, and they end with the file or with the pixels, so that
    nobody counts how often they read.
    """
    from PIL import Image

    if any(tile.codec_name in Image.DECODERS for tile in image.tile):
        file.seek(0)
        image.fp = io.BytesIO(file.read())


def require_rgb(image: Image.Image, channels: int) -> None:
    """Raise `vgx.Dropped` for an image that is not plain RGB, unless such images are asked for.

    Grey is asked for with other channels than RGB and RGBA, and alpha with RGBA.
    """
    convert = "dataset.non_rgb=convert"
    if image.has_transparency_data:
        if channels != 4:
            raise vgx.Dropped("with alpha", convert)
    elif image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        if channels in (3, 4):
            raise vgx.Dropped("greyscale", convert, "image.channels=1")
    elif image.mode != "RGB":
        raise vgx.Dropped(f"in mode {image.mode}", convert)


def described(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no reason given'}"
