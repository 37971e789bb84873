"""Image files: which formats are read, whether files changed, and images that are not RGB."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from PIL import Image, ImageFile


NonRgb = Literal["skip", "convert"]

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats of pixels that Pillow reads: no programs (EPS), no metafiles, no data formats."""
MAX_PIXELS = 2**26
"""Images of more pixels are not decoded: 8,192 x 8,192, 256 MiB in memory."""


def endings() -> set[str]:
    """Return the endings of image files in lower case: ".jpg" and others."""
    from PIL import Image

    return {end for end, name in Image.registered_extensions().items() if name in FORMATS}


def has_parquet(folder: Path) -> bool:
    """Return whether a folder has parquet files, as data sets in the hub's layout do."""
    return any(folder.rglob("*.parquet"))


def digest(files: list[Path], root: Path) -> str:
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


def read(file: Path | IO[bytes], name: str, non_rgb: NonRgb) -> Image.Image:
    """Return the first frame of an image file as RGB, rotated as its EXIF data say.

    Raises `vgx.Dropped` for an image that is left out, and `DataError` for a file that cannot be
    read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]  # AVIF is not in every build
    try:
        with Image.open(file, formats=formats) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise vgx.DataError(f"{name}: {width:,} x {height:,} pixels are too many to decode")
            scale_transparency(image)
            ImageOps.exif_transpose(image, in_place=True)
            if non_rgb == "skip" and (why := _not_rgb(image)):
                raise vgx.Dropped(why)
            return vgx.convert_image(image, channels=3)
    except UnidentifiedImageError as error:
        raise vgx.DataError(f"{name}: not an image, or broken at its beginning") from error
    except (vgx.Dropped, vgx.DataError, MemoryError):
        raise
    # Decoders raise many kinds of error for bad files; for the user they all mean the same.
    except Exception as error:
        raise vgx.DataError(f"{name}: {type(error).__name__}: {error}") from error


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
