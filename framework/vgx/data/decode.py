"""One image of a source as an array, whatever its mode, or why it cannot be used.

The recipe's `image` decides here what an image becomes: its channels, what is behind transparent
pixels, and how it fits the size. Images of more than 8 bits keep their values.

Letters: h x w pixels of an image as it is, with c channels; H x W pixels, C channels of the recipe.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from vgx.errors import DataError, Dropped
from vgx.parts.kinds import Source
from vgx.parts.values import ImageSpec

# Errors of the machine, not of the image: the same image may be readable a minute later.
MACHINE = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
    errno.ETIMEDOUT,
)  # fmt: skip
LONGEST = 200  # characters of the message about one image
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# The kinds of values of a store, the narrowest first, and what is white (or opaque) in each.
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# The shares of red, green and blue in grey (ITU-R BT.601).
GREY = np.array([0.299, 0.587, 0.114], np.float32)
BILINEAR = Image.Resampling.BILINEAR


@dataclass
class Decoded:
    """An image as the recipe wants it."""

    pixels: NDArray[Any]  # [H, W, C]  uint8, uint16 or float32; NaN is the background
    ratio: float  # of width to height, as it was
    low: float  # the smallest value before it was resized; 0 for bytes
    high: float  # the largest one; 255 for bytes
    remark: str  # what its source says about it, "of several pages ..."


def decode(source: Source, index: int, image: ImageSpec) -> Decoded | Dropped | DataError:
    """Return image `index`, or that it is left out, or why it cannot be read.

    Raises `DataError` for what is no fault of the image: no memory, a disk that fails.
    """
    try:
        opened = source[index]
        if isinstance(opened, np.ndarray):
            return _decoded(_checked(opened), image)
        with opened:
            return _decoded(opened, image)
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


def _decoded(opened: Image.Image | NDArray[Any], image: ImageSpec) -> Decoded:
    remark = "" if isinstance(opened, np.ndarray) else str(opened.info.get("remark", ""))
    whole = _in_channels(opened, image)
    if isinstance(whole, Image.Image):
        size, low, high = whole.size, 0.0, 255.0
    else:
        size = whole.shape[1], whole.shape[0]
        low, high = _extremes(whole)
    width, height = size
    target, box = (image.width, image.height), None
    if image.fit == "crop":
        box = _centred(width, height, image)
    elif image.fit == "pad":
        scale = min(image.width / width, image.height / height)
        target = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = _resized(whole, target, box)
    if target != (image.width, image.height):
        pixels = _padded(pixels, image)
    return Decoded(pixels, width / height, low, high, remark)


# --- channels ----------------------------------------------------------------------------------


def _in_channels(
    opened: Image.Image | NDArray[Any], image: ImageSpec
) -> Image.Image | NDArray[Any]:
    """Return an image of bytes with 1, 3 or 4 channels as a PIL image, others as [h, w, C]."""
    if isinstance(opened, np.ndarray):
        channels = opened.shape[2]
        if opened.dtype != np.uint8 or not {channels, image.channels} <= {*MODES}:
            return _matched(opened, image)
        opened = Image.fromarray(opened if channels > 1 else opened[..., 0])
    if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
        return _matched(_values(opened, image), image)
    if image.channels in MODES:
        return _as_bytes(opened, MODES[image.channels], image.background)
    plain = opened.convert("RGB") if opened.mode in ("P", "1") else opened
    return _matched(_checked(np.asarray(plain)), image)


def _as_bytes(image: Image.Image, mode: str, behind: str = "auto") -> Image.Image:
    """Return an image of 8 bits in mode L, RGB or RGBA; only the last stays transparent."""
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        image = transform.apply(image)
    elif image.has_transparency_data:
        transparent = image.info.get("transparency")
        if isinstance(transparent, tuple) and max(transparent) > 255:  # Pillow cuts 16 bits to 8
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        image = image.convert("RGBA")
        if mode != "RGBA":
            plain = Image.new("RGBA", image.size, colour(behind))
            image = Image.alpha_composite(plain, image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _values(image: Image.Image, spec: ImageSpec) -> NDArray[Any]:
    """[h, w, 1]  Return a greyscale image of more than 8 bits: uint16, or float32."""
    values = np.asarray(image)
    # A PGM file of 16 bits is opened as 32, and its own white is scaled to 65535.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = values.astype(np.uint16)
        transparent = image.info.get("transparency")
        if transparent is not None:
            values[values == transparent] = round(fill(spec)[0] * 65535)
    return _checked(values)


def _checked(array: NDArray[Any]) -> NDArray[Any]:
    """[h, w, c]  Return an array as uint8, uint16 or float32. Raises `ValueError`."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not array.size:
        raise ValueError(f"an array {array.shape} is no image: it takes [H, W] or [H, W, C]")
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"an array of {array.dtype} is no image: it takes uint8, uint16 or floats")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("some of its values are not finite")
    return array


def _matched(array: NDArray[Any], image: ImageSpec) -> NDArray[Any]:
    """[h, w, C]  Return an array [h, w, c] with the channels of the recipe.

    Between grey, RGB and RGBA they are converted; other numbers must match. Raises `ValueError`.
    """
    given, wanted = array.shape[2], image.channels
    white = WHITE[array.dtype.name]
    if given != wanted and given <= 4 and wanted in MODES:
        grey, alpha = given <= 2, given in (2, 4)
        colours = array[..., :1].repeat(3, axis=2) if grey else array[..., :3]
        if wanted == 4:
            last = array[..., -1:] if alpha else np.full_like(array[..., :1], white)
            return np.concatenate([colours, last], axis=2)
        if wanted == 3 and not alpha:
            return colours
        mixed = colours.astype(np.float32)
        if alpha:
            behind = np.array(colour(image.background), np.float32) * np.float32(white / 255)
            share = array[..., -1:] / np.float32(white)
            mixed *= share
            mixed += behind * (1 - share)
        return as_kind(mixed if wanted == 3 else mixed @ GREY[:, None], array.dtype)
    if given != wanted:
        message = f"channels: {given} in the image, {wanted} in the recipe"
        raise ValueError(f"{message}; to take all of them: --set image.channels={given}")
    return array


# --- size --------------------------------------------------------------------------------------


def _extremes(whole: NDArray[Any]) -> tuple[float, float]:
    if whole.dtype == np.uint8:
        return 0.0, 255.0
    return float(whole.min()), float(whole.max())


def _centred(width: int, height: int, image: ImageSpec) -> tuple[float, float, float, float]:
    """Return the largest centred part with the recipe's ratio: left, top, right, bottom."""
    ratio = image.width / image.height
    inner_width, inner_height = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - inner_width) / 2, (height - inner_height) / 2
    return left, top, left + inner_width, top + inner_height


def _resized(
    whole: Image.Image | NDArray[Any],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
) -> NDArray[Any]:
    """Return an image with another width and height, of the same kind of values."""
    if isinstance(whole, Image.Image):
        return _with_channels(np.asarray(whole.resize(size, BILINEAR, box)))
    alpha = whole[..., 3] / np.float32(WHITE[whole.dtype.name]) if whole.shape[2] == 4 else None
    planes = list[NDArray[Any]]()
    for c in range(whole.shape[2]):  # one after another: floats take twice the memory of 16 bits
        plane = whole[..., c] if whole.dtype == np.uint8 else whole[..., c].astype(np.float32)
        if alpha is not None and c < 3:  # a transparent pixel gives its neighbours no colour
            plane = plane * alpha
        planes.append(np.asarray(Image.fromarray(plane).resize(size, BILINEAR, box)))
    values = np.stack(planes, axis=2)
    if alpha is not None:
        shares = values[..., 3:] / np.float32(WHITE[whole.dtype.name])
        values[..., :3] /= np.maximum(shares, np.float32(1e-9))
    return as_kind(values, whole.dtype)


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    return array[..., None] if array.ndim == 2 else array


def _padded(pixels: NDArray[Any], image: ImageSpec) -> NDArray[Any]:
    """[H, W, C]  Return a smaller image in the middle of the background."""
    if pixels.dtype == np.float32:
        plain = np.full(image.channels, np.nan, np.float32)  # the range may not be known yet
    else:
        plain = as_kind(fill(image) * WHITE[pixels.dtype.name], pixels.dtype)
    whole = np.empty((image.height, image.width, image.channels), pixels.dtype)
    whole[:] = plain
    # The place of Pillow's `ImageOps.pad`.
    top, left = round((image.height - len(pixels)) / 2), round((image.width - pixels.shape[1]) / 2)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return whole


def as_kind(values: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return values as another kind, rounded and clipped where it has whole numbers."""
    if kind == np.float32:
        return values.astype(np.float32)
    whole: NDArray[Any] = np.rint(values).clip(0, WHITE[kind.name]).astype(kind)
    return whole


# --- colours -----------------------------------------------------------------------------------


def colour(name: str) -> tuple[int, int, int]:
    """Return red, green and blue of a background. `auto` that nobody settled is black."""
    red, green, blue, *_ = ImageColor.getrgb("black" if name == "auto" else name)
    return red, green, blue


def fill(image: ImageSpec) -> NDArray[np.float64]:
    """[C]  Return the background in each channel, in [0, 1].

    With 4 channels `auto` is transparent. Where channels are no colours, each has its brightness.
    """
    colours = np.array(colour(image.background)) / 255
    if image.channels == 4:
        return np.append(colours, 0.0 if image.background == "auto" else 1.0)
    return colours if image.channels == 3 else np.full(image.channels, colours @ GREY)


def convert_image(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of any mode as RGB or greyscale of 8 bits.

    Transparent pixels are laid on black. Integers of 16 bits are scaled from 0 .. 65535, floats
    and integers of 32 bits from 0 .. 1, or from the smallest to the largest value of the image. CIE
    Lab becomes sRGB; other colour profiles are not applied. Data sets need this no longer: they
    may give any image as it is.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = _values(image, ImageSpec(4, 1))[..., 0]  # [H, W]
        low, high = 0.0, WHITE[values.dtype.name]
        if values.dtype == np.float32 and (values.min() < 0 or values.max() > 1):
            low, high = float(values.min()), float(values.max())
        scaled = (values.astype(np.float64) - low) / ((high - low) or 1) * 255
        image = Image.fromarray((scaled + 0.5).astype(np.uint8))
    return _as_bytes(image, "RGB" if channels == 3 else "L")


def brightness_of_visible(opened: Image.Image | NDArray[Any]) -> float | None:
    """Return the mean brightness in [0, 1] of what is not transparent; None if nothing is."""
    if isinstance(opened, np.ndarray):
        array = _checked(opened)
        if array.shape[2] not in (2, 4):
            return None
    elif opened.has_transparency_data and opened.mode[0] not in "IF":
        array = np.asarray(_as_bytes(opened, "RGBA"))
    else:
        return None
    values = _matched(array, ImageSpec(4, 4)) / WHITE[array.dtype.name]  # [h, w, 4]
    share = values[..., 3]
    transparent = share.min() < 1 and share.any()
    return float((values[..., :3] @ GREY * share).sum() / share.sum()) if transparent else None


# --- errors ------------------------------------------------------------------------------------


@contextmanager
def guarded() -> Iterator[None]:
    """Refuse images that Pillow takes for decompression bombs; hide its other warnings."""
    _silence_libtiff()
    log = logging.getLogger("PIL")
    before = log.level
    log.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        guard()
        try:
            yield
        finally:
            log.setLevel(before)


def guard() -> None:
    """Refuse and hide the same from now on, in all threads: they share the filters of warnings."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _silence_libtiff() -> None:
    """Keep libtiff from writing to standard error: it names no file. Pillow raises errors anyway.

    Pillow has no switch for that. Where the system does not list the libraries of a process, or
    Pillow has no libtiff of its own, nothing happens.
    """
    with suppress(OSError, AttributeError):
        lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
        for library in {line.split(maxsplit=5)[-1] for line in lines if "/libtiff" in line}:
            ctypes.CDLL(library).TIFFSetErrorHandler(None)


def described(error: BaseException) -> str:
    """Return the type of an error and its message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def printable(text: str) -> str:
    """Return one line of bounded length without characters that cannot be printed."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _of_the_machine(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE)
