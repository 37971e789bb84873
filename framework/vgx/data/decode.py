"""One picture of a source as plain bytes, whatever its mode, or why it cannot be used.

Letters: S pixels high and wide, C channels.
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

# What no picture can be blamed for: the same one may be read a minute later.
MACHINE = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
    errno.ETIMEDOUT,
)  # fmt: skip
LONGEST = 200  # letters that are kept of what is said of one picture


def decode(source: Source, index: int, image: ImageSpec) -> NDArray[np.uint8] | Dropped | DataError:
    """[S, S, C]  Return picture `index`, or that it is left out, or why it cannot be read.

    Raises `DataError` for what is no fault of the picture: no memory, a disk that fails.
    """
    try:
        with source[index] as picture:
            whole = convert_image(picture, image.channels)
            small = whole.resize((image.size, image.size), Image.Resampling.BILINEAR)
    except Dropped as reason:
        return reason
    # Decoders raise many things for bad files; each means the same to the person.
    except Exception as error:
        named = isinstance(error, DataError)
        text = str(error) if named else f"picture {index} cannot be read: {said(error)}"
        text = printable(text)
        if any(_of_the_machine(fault) for fault in (error, error.__cause__)):
            raise DataError(f"{text} (no fault of the picture, so it is not left out)") from error
        return DataError(text)
    return np.asarray(small).reshape(image.size, image.size, image.channels)


def convert_image(picture: Image.Image, channels: int) -> Image.Image:
    """Return a picture of any mode as RGB or greyscale of 8 bits.

    Transparent pixels are laid on black. Integers of 16 bits are scaled from 0 .. 65535. There is
    no agreed white for more: floats within 0 .. 1 are scaled from there, all others, and integers
    of 32 bits, from the picture's own smallest and largest value. CIE Lab becomes sRGB; other
    colour profiles are not applied.
    """
    mode = "RGB" if channels == 3 else "L"
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _of_8_bits(picture)
    elif picture.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        change = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        picture = change.apply(picture)
    elif picture.has_transparency_data:
        clear = picture.info.get("transparency")
        if isinstance(clear, tuple) and max(clear) > 255:  # of a file of 16 bits, which are cut
            picture.info["transparency"] = tuple(value >> 8 for value in clear)
        layer = picture.convert("RGBA")
        black = Image.new("RGBA", layer.size, "black")
        picture = Image.alpha_composite(black, layer).convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _of_8_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)  # [H, W]
    if not np.isfinite(values).all():
        raise ValueError("some of its values are no finite numbers")
    low, high = values.min(), values.max()
    if picture.mode.startswith("I;16"):
        # A TIFF file may use but 12 of them.
        bits = picture.tag_v2.get(258) if picture.format == "TIFF" else None  # type: ignore[attr-defined]
        low, high = 0, 4095 if bits == (12,) else 65535
    elif picture.format == "PPM" and picture.mode == "I":
        low, high = 0, 65535  # what Pillow makes of a PGM file's own white
    elif picture.mode == "F" and low >= 0 and high <= 1:
        low, high = 0, 1
    scaled = (values - low) / ((high - low) or 1) * 255
    if (clear := picture.info.get("transparency")) is not None:
        scaled[values == clear] = 0
    return Image.fromarray((scaled + 0.5).astype(np.uint8))


@contextmanager
def guarded() -> Iterator[None]:
    """Refuse pictures that Pillow takes for decompression bombs; let it grumble about no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def said(error: BaseException) -> str:
    """Return an error as one says it: its kind and its words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def printable(text: str) -> str:
    """Return one line of a bounded length that any terminal and any file takes."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _of_the_machine(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE)
