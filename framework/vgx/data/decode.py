"""One image of a source as plain bytes, whatever its mode, or why it cannot be used.

Letters: H x W pixels, C channels.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgx.errors import DataError, Dropped
from vgx.parts.kinds import Source
from vgx.parts.values import ImageSpec

# Errors of the machine, not of the image: the same image may be readable a minute later.
MACHINE = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
    errno.ETIMEDOUT,
)  # fmt: skip
LONGEST = 200  # characters of the message about one image


def decode(source: Source, index: int, image: ImageSpec) -> NDArray[np.uint8] | Dropped | DataError:
    """[H, W, C]  Return image `index`, or that it is left out, or why it cannot be read.

    Raises `DataError` for what is no fault of the image: no memory, a disk that fails.
    """
    try:
        opened = source[index]
        # Bytes only, until arrays of 16 bits and floats are kept as they are.
        picture = Image.fromarray(opened) if isinstance(opened, np.ndarray) else opened
        with picture:
            whole = convert_image(picture, image.channels)
            resized = whole.resize((image.width, image.height), Image.Resampling.BILINEAR)
    except Dropped as reason:
        return reason
    # Decoders raise many kinds of error for bad files; each means the same to the user.
    except Exception as error:
        named = isinstance(error, DataError)
        text = str(error) if named else f"image {index} cannot be read: {described(error)}"
        text = printable(text)
        if any(_of_the_machine(fault) for fault in (error, error.__cause__)):
            raise DataError(f"{text} (no fault of the image, so it is not left out)") from error
        return DataError(text)
    return np.asarray(resized).reshape(image.height, image.width, image.channels)


def convert_image(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of any mode as RGB or greyscale of 8 bits.

    Transparent pixels are laid on black. Integers of 16 bits are scaled from 0 .. 65535. Floats
    within 0 .. 1 are scaled from there. Other floats and integers of 32 bits have no agreed white:
    they are scaled from the smallest and largest value of the image. CIE Lab becomes sRGB; other
    colour profiles are not applied.
    """
    mode = "RGB" if channels == 3 else "L"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _of_8_bits(image)
    elif image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        image = transform.apply(image)
    elif image.has_transparency_data:
        transparent = image.info.get("transparency")
        if isinstance(transparent, tuple) and max(transparent) > 255:  # Pillow cuts 16 bits to 8
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, "black")
        image = Image.alpha_composite(black, layer).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _of_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)  # [H, W]
    if not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16"):
        # A TIFF file may use only 12 bits.
        bits = image.tag_v2.get(258) if image.format == "TIFF" else None  # type: ignore[attr-defined]
        low, high = 0, 4095 if bits == (12,) else 65535
    elif image.format == "PPM" and image.mode == "I":
        low, high = 0, 65535  # to which Pillow scales a PGM file's own white
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0, 1
    scaled = (values - low) / ((high - low) or 1) * 255
    if (transparent := image.info.get("transparency")) is not None:
        scaled[values == transparent] = 0
    return Image.fromarray((scaled + 0.5).astype(np.uint8))


@contextmanager
def guarded() -> Iterator[None]:
    """Refuse images that Pillow takes for decompression bombs; hide its other warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def described(error: BaseException) -> str:
    """Return the type of an error and its message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def printable(text: str) -> str:
    """Return one line of bounded length without characters that cannot be printed."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _of_the_machine(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE)
