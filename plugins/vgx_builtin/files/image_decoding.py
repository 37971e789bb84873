"""Image files as images: which of them are read, and why others are not.

Letters: H x W pixels, C channels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

import vgx
from vgx_builtin.files import formats
from vgx_builtin.files.deep_images import COLOURS, READS_MORE, read_deep
from vgx_builtin.files.image_files import (
    IS_POINTER,
    POINTER,
    FewReads,
    NonRgb,
    hold_for_python,
    open_bounded,
    require_few_pixels,
    require_rgb,
    too_many,
)
from vgx_builtin.files.jxl import jxl_pixels
from vgx_builtin.files.tiffs import read_tiff

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image, ImageFile

    Read = Image.Image | NDArray[Any]

SOFTWARE = 305
"""The EXIF tag with the name of the program that wrote an image."""
ORIENTATION = 0x0112
"""The EXIF tag that says how an image is turned."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF file begins."""


def read(file: Path, name: str, non_rgb: NonRgb, channels: int = 3) -> Read:
    """Return the image in a regular file as `decode` does; `name` is its name in messages."""
    with open_bounded(file, name) as opened:
        return decode(opened, name, non_rgb, channels)


def decode(file: IO[bytes], name: str, non_rgb: NonRgb, channels: int = 3) -> Read:
    """Return the first frame of an image file as it is, rotated as its EXIF data say.

    Where Pillow would cut the image, and where pages are channels, it is an array. Raises
    `vgx.Dropped` for an image that is left out, and `DataError` for a file that cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    few_reads = cast("IO[bytes]", FewReads(file))
    try:
        with Image.open(few_reads, formats=_readers(file)) as image:
            return _opened(image, file, non_rgb, channels)
    except UnidentifiedImageError as error:
        return _of_other_kind(file, name, channels, error)
    except (vgx.Dropped, MemoryError):
        raise
    except vgx.DataError as error:
        raise vgx.DataError(f"{name}: {error}") from error
    # Pillow's own bounds are larger; it tells the number of pixels.
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = int(re.sub(r"\D.*", "", str(error).partition("(")[2]) or 0)
        raise vgx.DataError(f"{name}: {too_many(pixels)}") from error
    # Decoders raise many kinds of error for bad files; for the user they all mean the same.
    except Exception as error:
        kind = " (a TIFF of a kind that Pillow cannot read, or torn)" if _is_tiff(file) else ""
        raise vgx.DataError(f"{name}: {type(error).__name__}: {error}{kind}") from error


def _opened(image: ImageFile.ImageFile, file: IO[bytes], non_rgb: NonRgb, channels: int) -> Read:
    from PIL import ImageOps

    require_few_pixels(image.width * image.height)
    scale_transparency(image)
    hold_for_python(image, file)
    if non_rgb == "skip":
        require_rgb(image, channels)
    if (deep := read_deep(image, file, channels)) is not None:
        return _expected(_rotated(deep, image.getexif().get(ORIENTATION, 1)), channels)
    # Not before: the EXIF data may stand behind the pixels, which are decoded to find them.
    if _made_by_vgx(image):
        raise vgx.Dropped("grids made by vgx")
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    return _expected(image, channels)


def _readers(file: IO[bytes]) -> list[str]:
    """Return the formats that a file may have. Raises `DataError` for one that is not read."""
    from PIL import Image

    kind = formats.newer_kind(file.read(formats.HEAD))
    file.seek(0)
    if kind and not formats.load_reader(kind):
        raise vgx.DataError(f"its format is {kind}; {formats.INSTALL} reads it")
    if kind == "JXL":  # its reader decodes an image as soon as it opens it
        require_few_pixels(jxl_pixels(file))
    return [kind] if kind else [known for known in formats.FORMATS if known in Image.OPEN]


def _made_by_vgx(image: Image.Image) -> bool:
    """Return whether vgx has written an image as a grid or an animation."""
    return image.getexif().get(SOFTWARE) == "vgx" or image.info.get("comment") == b"vgx"


def _is_tiff(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(4).startswith(TIFF)


def _expected(image: Read, channels: int) -> Read:
    """Return the same image. Raises `DataError` unless it is finite and has so many channels."""
    if not isinstance(image, np.ndarray) and channels in COLOURS and image.mode != "F":
        return image  # which the core converts
    array = np.asarray(image)
    given = array.shape[2] if array.ndim == 3 else 1
    if given != channels and (given > 4 or channels not in COLOURS):
        instead = f"write --set image.channels={given}"
        raise vgx.DataError(f"it has {given} channels, and image.channels is {channels}; {instead}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise vgx.DataError("some of its values are not finite")
    return image


def _of_other_kind(file: IO[bytes], name: str, channels: int, error: Exception) -> Read:
    """Read a TIFF file that Pillow does not know. Raises `DataError` that says what a file is."""
    file.seek(0)
    head = file.read(len(POINTER))
    if head == POINTER:
        raise vgx.DataError(f"{name}: {IS_POINTER}") from error
    if not _is_tiff(file):
        raise vgx.DataError(f"{name}: not an image, or broken at its beginning") from error
    kind = "a TIFF of a kind that Pillow cannot read"
    try:
        if (array := read_tiff(file)) is not None:
            return _expected(array, channels)
    except Exception as other:
        raise vgx.DataError(f"{name}: {kind}: {other}") from other
    raise vgx.DataError(f"{name}: {kind}, or broken; {READS_MORE}") from error


def _rotated(image: Read, orientation: int) -> Read:
    """Return an image upright, by the orientation in its EXIF data; an array is [H, W, C]."""
    from PIL import ImageOps

    if not isinstance(image, np.ndarray):
        image.getexif()[ORIENTATION] = orientation
        ImageOps.exif_transpose(image, in_place=True)
        return image
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def scale_transparency(image: ImageFile.ImageFile) -> None:
    """Scale the transparent grey of a PNG file to 8 bits; Pillow scales the pixels only."""
    if image.format == "PNG" and "transparency" in image.info:
        step = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)
        if step > 1:
            image.info["transparency"] *= step
