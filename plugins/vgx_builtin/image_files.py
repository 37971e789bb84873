"""Image files: opened, decoded, and whether they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import vgx
from vgx_builtin import formats

if TYPE_CHECKING:
    from PIL import Image, ImageFile


NonRgb = Literal["skip", "convert"]

MAX_PIXELS = 2**26
"""Images of more pixels are not decoded: 8,192 x 8,192, 256 MiB in memory."""
MAX_BYTES = 2**28
"""Image files that are larger are not read; some decoders read a file as a whole."""
SOFTWARE = 305  # the EXIF tag with the name of the program that wrote an image
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


def read(file: Path, name: str, non_rgb: NonRgb) -> Image.Image:
    """Return the image in a regular file as `decode` does; `name` is its name in messages."""
    with open_regular(file, name) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > MAX_BYTES:
            raise vgx.DataError(f"{name}: {size:,} bytes; at most {MAX_BYTES:,} are read")
        return decode(opened, name, non_rgb)


def whole(file: IO[bytes], name: str) -> bytes:
    """Return the content of an open file. Raises `DataError` for more than `MAX_BYTES` bytes."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise vgx.DataError(f"{name}: more than {MAX_BYTES:,} bytes; no more are read")
    return data


class _FewReads:
    """The file of an image, which is not read on for ever."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.reads = file, 0

    def read(self, size: int = -1) -> bytes:
        """Read as usual. Raises `OSError` when it has been read too often."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise OSError("no image at its beginning")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self.file.tell()


def decode(file: IO[bytes], name: str, non_rgb: NonRgb) -> Image.Image:
    """Return the first frame of an image file as RGB, rotated as its EXIF data say.

    Raises `vgx.Dropped` for an image that is left out, and `DataError` for a file that cannot be
    read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    readers = _readers(file, name)
    try:
        with Image.open(cast("IO[bytes]", _FewReads(file)), formats=readers) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise vgx.DataError(f"{name}: {width:,} x {height:,} pixels are too many to decode")
            scale_transparency(image)
            if _made_by_vgx(image):
                raise vgx.Dropped("grids made by vgx")
            ImageOps.exif_transpose(image, in_place=True)
            if non_rgb == "skip" and (why := _not_rgb(image)):
                grey = ("image.channels=1",) if why == "greyscale" else ()
                raise vgx.Dropped(why, "dataset.non_rgb=convert", *grey)
            return vgx.convert_image(image, channels=3)
    except UnidentifiedImageError as error:
        raise vgx.DataError(f"{name}: not an image, or broken at its beginning") from error
    except (vgx.Dropped, vgx.DataError, MemoryError):
        raise
    # Decoders raise many kinds of error for bad files; for the user they all mean the same.
    except Exception as error:
        raise vgx.DataError(f"{name}: {type(error).__name__}: {error}") from error


def _readers(file: IO[bytes], name: str) -> list[str]:
    """Return the formats that a file may have. Raises `DataError` for one that nothing reads."""
    from PIL import Image

    kind = formats.newer_kind(file.read(formats.HEAD))
    file.seek(0)
    if kind and not formats.load_reader(kind):
        raise vgx.DataError(f"{name}: its format is {kind}; {formats.INSTALL} reads it")
    return [kind] if kind else [known for known in formats.FORMATS if known in Image.OPEN]


def _made_by_vgx(image: Image.Image) -> bool:
    """Return whether vgx has written an image as a grid or an animation."""
    return image.getexif().get(SOFTWARE) == "vgx" or image.info.get("comment") == b"vgx"


def scale_transparency(image: ImageFile.ImageFile) -> None:
    """Scale the transparent grey of a PNG file to 8 bits; Pillow scales the pixels only."""
    if image.format == "PNG" and "transparency" in image.info:
        step = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)
        if step > 1:
            image.info["transparency"] *= step


def _not_rgb(image: Image.Image) -> str:
    """Return why an image is not plain RGB, or an empty text when it is."""
    if image.has_transparency_data:
        return "with alpha"
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        return "greyscale"
    return "" if image.mode == "RGB" else f"in mode {image.mode}"


def described(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no reason given'}"
