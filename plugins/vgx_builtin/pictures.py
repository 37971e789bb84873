"""Picture files: whether they changed, how they are opened, and what of those that are not RGB."""

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
"""Files of pixels, of those that Pillow opens: no programs (EPS), no metafiles, no data formats."""
MAX_PIXELS = 2**26
"""More are not decoded: 8,192 x 8,192, 256 MiB in memory."""


def endings() -> set[str]:
    """Return the endings of picture files, in small letters: ".jpg" and others."""
    from PIL import Image

    return {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}


def digest(files: list[Path], root: Path) -> str:
    """Return a sum over names, sizes and times of files: it changes when one of them does.

    Raises `DataError` for a file that cannot be asked.
    """
    summed = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
        except OSError as error:
            raise vgx.DataError(f"{file}: {error.strerror}") from error
        summed.update(os.fsencode(file.relative_to(root)))
        summed.update(f"|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return summed.hexdigest()


def read(file: Path | IO[bytes], name: str, non_rgb: NonRgb) -> Image.Image:
    """Return the first frame of a picture file as RGB, turned upright as its EXIF data say.

    Raises `vgx.Dropped` for one that is left out, and `DataError` for one that cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]  # AVIF is not in every build
    try:
        with Image.open(file, formats=formats) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise vgx.DataError(f"{name}: {width:,} x {height:,} pixels are too many to decode")
            _mend_transparency(picture)
            ImageOps.exif_transpose(picture, in_place=True)
            if non_rgb == "skip" and (why := _not_rgb(picture)):
                raise vgx.Dropped(why)
            return vgx.convert_image(picture, channels=3)
    except UnidentifiedImageError as error:
        raise vgx.DataError(
            f"{name}: no picture, or one that is broken at its beginning"
        ) from error
    except (vgx.Dropped, vgx.DataError, MemoryError):
        raise
    # Decoders raise many things for bad files; each means the same to the person.
    except Exception as error:
        raise vgx.DataError(f"{name}: {type(error).__name__}: {error}") from error


def _mend_transparency(picture: ImageFile.ImageFile) -> None:
    """Bring the transparent grey of a PNG file to 8 bits: Pillow does so with its pixels only."""
    if picture.format == "PNG" and "transparency" in picture.info:
        step = {"L;2": 85, "L;4": 17}.get(str(picture.tile[0].args), 1)
        if step > 1:
            picture.info["transparency"] *= step


def _not_rgb(picture: Image.Image) -> str:
    """Return why a picture is not plain RGB, or nothing when it is."""
    if picture.has_transparency_data:
        return "with alpha"
    if picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16"):
        return "greyscale"
    return "" if picture.mode == "RGB" else f"in mode {picture.mode}"
