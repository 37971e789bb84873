"""Values of more than 8 bits: their kinds, the range that is measured, and floats in [0, 1].

Letters: N images, H x W pixels, C channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgx.data.decode import WHITE, colour, fill
from vgx.errors import RecipeError
from vgx.parts.values import ImageSpec

KINDS = tuple(WHITE)  # the narrowest first


def widest(*kinds: str) -> str:
    """Return the kind that holds the values of all kinds."""
    return max(kinds, key=KINDS.index)


def widened(pixels: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return pixels as a wider kind: white stays white."""
    if pixels.dtype == kind:
        return pixels
    if kind == "uint16":
        return pixels.astype(np.uint16) * np.uint16(257)
    return pixels.astype(np.float32) / np.float32(WHITE[pixels.dtype.name])


def limits(image: ImageSpec, kind: str, low: float, high: float) -> tuple[float, float]:
    """Return which values are black and white: the recipe's, or what the values tell.

    `low` and `high` are the smallest and the largest value of all images. With `auto`, bytes go
    from 0 to 255, and 16 bits from 0 to the smallest 2^b - 1 that is not exceeded. Floats go from 0
    to 1 if all are within, otherwise from the smallest to the largest.
    """
    if image.range != "auto":
        return image.range
    if kind == "uint16":
        return 0.0, float(2 ** max(int(high).bit_length(), 1) - 1)
    return (0.0, WHITE[kind]) if kind == "uint8" or (low >= 0 and high <= 1) else (low, high)


def require_known_background(image: ImageSpec, kind: str, limits: tuple[float, float]) -> None:
    """Raise `RecipeError` for padded images of 16 bits whose background is no value of theirs.

    They were padded before their range was known. Black and white are always the ends of it.
    """
    colours = {colour(image.background), (0, 0, 0), (255, 255, 255)}
    if kind == "uint16" and image.fit == "pad" and limits != (0, 65535) and len(colours) > 2:
        used = f"images of 16 bits that use {limits[0]:g} to {limits[1]:g} are padded"
        message = f"{image.background}: {used} with black or white; write --set image.fit=crop"
        raise RecipeError(f"image.background: {message}, or --set image.background=black")


@dataclass(frozen=True, eq=False)
class Scaled:
    """Images that are given as float32 in [0, 1]: from `low` to `high`, clipped."""

    values: NDArray[Any]  # [N, H, W, C]
    low: float
    high: float
    fill: NDArray[np.float64]  # [C]  what stands for NaN, in [0, 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, their height, their width and their channels."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """The size of all images in bytes, as they are given."""
        return 4 * self.values.size

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> NDArray[np.float32]:
        """[n, H, W, C]  Return some images."""
        values = self.values[rows].astype(np.float64)
        values = (values - self.low) / ((self.high - self.low) or 1)
        if self.values.dtype == np.float32:
            values = np.where(np.isnan(values), self.fill, values)
        scaled: NDArray[np.float32] = values.clip(0, 1).astype(np.float32)
        return scaled

    def content(self, sha256: str) -> str:
        """Return a hash of these images, given one of their values."""
        text = f"{sha256}|{self.low!r}|{self.high!r}|{self.fill.tolist()}"
        return hashlib.sha256(text.encode()).hexdigest()


def as_given(
    values: NDArray[Any], image: ImageSpec, black: float, white: float
) -> NDArray[Any] | Scaled:
    """Return values as images: bytes from 0 to 255 as they are, others as floats in [0, 1]."""
    if values.dtype == np.uint8 and (black, white) == (0, 255):
        return values
    return Scaled(values, black, white, fill(image))


def without_measuring(pixels: NDArray[Any], image: ImageSpec) -> NDArray[Any]:
    """[H, W, C]  Return the values of one image as bytes with `range: auto`, otherwise as floats.

    With `auto`, 16 bits go from 0 to 65535 and floats from 0 to 1: the range of all images is not
    known.
    """
    if pixels.dtype == np.uint8 and image.range == "auto":
        return pixels
    kind = pixels.dtype.name
    given = Scaled(pixels[None], *limits(image, kind, 0.0, WHITE[kind]), fill(image))[:]
    values: NDArray[Any] = given[0]
    return values if image.range != "auto" else (values * 255).round().astype(np.uint8)
