"""One look at the images of a store: what would spoil a training without an error.

Letters: N images, H x W pixels, C channels, K images that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgx.data.decode import brightness_of_visible
from vgx.data.pieces import Facts
from vgx.data.pixels import as_given
from vgx.parts.kinds import Source
from vgx.parts.values import ImageSpec

LOOKED = 4096  # images that are looked at, at most, evenly spread over all
COMPARED = 1024  # of those, images that are compared with each other
GRID = 16  # points a side of an image that are looked at first
FLAT = 2.5 / 255  # an image whose values differ by less is one flat colour
DARK = 0.1  # an image without a value above is very dark
ALIKE = 1.5 / 255  # images whose points differ by less, as a root mean square, are nearly equal
FIRST = 16  # usable images that decide about the background
TRIED = 64  # images that are opened for that, at most
# From these shares of the images on a notice is given.
MANY_FLAT, MANY_ALIKE, MANY_DARK = 0.05, 0.5, 0.1
LITTLE_USED = 0.2  # the same for less than this share of the range
SQUASHED = 1.2  # the same for proportions that change by more
BITS = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floats"}


@dataclass(frozen=True)
class Look:
    """What a look at the images of a store has found."""

    looked: int = 0  # images that were looked at, for the next four
    flat: int = 0  # of one colour
    alike: int = 0  # not flat, and nearly equal to another one
    dark: int = 0  # not flat, and without a value above a tenth of the range
    used: float = 1.0  # the share of the range between the smallest and the largest value
    ratio: float = 1.0  # of width to height before resizing: the median
    kinds: dict[str, int] = field(default_factory=dict)  # images of each kind of values
    remarks: dict[str, int] = field(default_factory=dict)  # what a source said of its images

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Look:
        """Return a look from a store. What is not understood counts as not looked at."""
        known = {**asdict(cls()), **fields}
        plain = all(type(value) is type(known[name]) for name, value in asdict(cls()).items())
        return cls(**known) if plain and len(known) == len(asdict(cls())) else cls()

    def counts(self) -> list[str]:
        """Return what is there, for a line of text."""
        found = {
            "of one flat colour": self.flat,
            "nearly equal": self.alike,
            "very dark": self.dark,
        }
        return [f"{n:,} {what}" for what, n in {**found, **self.remarks}.items() if n]

    def notices(self, image: ImageSpec, total: int) -> Iterator[str]:
        """Yield what the user should know, and what to write instead."""
        some = f"of {self.looked:,} images" + (" looked at" if self.looked < total else "")
        if self.flat > MANY_FLAT * self.looked:
            other = "white" if image.background == "black" else "black"
            if image.background == "auto":
                other = "white"
            advice = f"transparent ones may need --set image.background={other}"
            yield f"{self.flat:,} {some} are one flat colour; {advice}"
        if self.alike > MANY_ALIKE * self.looked:
            yield f"{self.alike:,} {some} are nearly equal to another one"
        if self.dark > MANY_DARK * self.looked:
            narrow = "a smaller range: --set image.range=[LOW, HIGH]"
            yield f"{self.dark:,} {some} have no value above a tenth of the range; for {narrow}"
        if self.used < LITTLE_USED:
            advice = "--set image.range=[LOW, HIGH] stretches another one"
            yield f"the images use {100 * self.used:.2g} % of the range of values; {advice}"
        if len(self.kinds) > 1:
            each = ", ".join(f"{BITS[kind]}: {count:,}" for kind, count in self.kinds.items())
            clipped = "; floats are clipped to 0 .. 1" if "float32" in self.kinds else ""
            yield f"images of several kinds of values ({each}) are kept as the widest{clipped}"
        change = self.ratio * image.height / image.width
        if image.fit == "squash" and max(change, 1 / change) > SQUASHED:
            shape = f"the median image is {self.ratio:.2f} times as wide as it is high"
            words = "--set image.fit=crop or --set image.fit=pad keeps its proportions"
            yield f"{shape}, and is squashed to {image.width} x {image.height} pixels; {words}"


def look(
    values: NDArray[Any],
    hashes: NDArray[np.uint64],
    image: ImageSpec,
    limits: tuple[float, float],
    facts: Facts,
) -> Look:
    """Look at images [N, H, W, C] whose values go from the one limit to the other."""
    some = values[:: -(-len(values) // LOOKED)]  # [K, H, W, C]
    high, wide = max(image.height // GRID, 1), max(image.width // GRID, 1)
    at_points = as_given(some[:, high // 2 :: high, wide // 2 :: wide], image, *limits)[:]
    points = np.moveaxis(at_points, 3, 1).reshape(len(some), image.channels, -1)  # [K, C, P]
    white = 255 if points.dtype == np.uint8 else 1
    least, most = points.min(2) / white, points.max(2) / white  # [K, C]
    flat, dark = (most - least).max(1) < FLAT, most.max(1) < DARK
    for row in np.flatnonzero(flat | dark):  # now all pixels of these few
        whole = as_given(some, image, *limits)[row : row + 1]
        flat[row] &= (whole.max((0, 1, 2)) / white - whole.min((0, 1, 2)) / white).max() < FLAT
        dark[row] &= whole.max() / white < DARK
    _, first, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    alike = (counts[first] > 1)[:: -(-len(values) // LOOKED)]  # [K]
    compared = slice(None, None, -(-len(points) // COMPARED))
    alike[compared] |= _nearly_equal(points[compared, :, ::3] / np.float32(white))
    return Look(
        looked=len(some),
        flat=int(flat.sum()),
        alike=int((alike & ~flat).sum()),
        dark=int((dark & ~flat).sum()),
        used=float(most.max() - least.min()),
        ratio=float(np.median(facts.ratios)),
        kinds=dict(sorted(facts.kinds.items())),
        remarks=dict(sorted(facts.remarks.items())),
    )


def _nearly_equal(points: NDArray[Any]) -> NDArray[np.bool_]:
    """[K]  Return whether each image is nearly equal to another one, by its points [K, C, P]."""
    grey = points.mean(1)  # [K, P]
    grey -= grey.mean(0)
    squares = (grey * grey).sum(1)
    apart = squares[:, None] + squares - 2 * grey @ grey.T  # [K, K]
    np.fill_diagonal(apart, np.inf)
    near: NDArray[np.bool_] = apart.min(1) < grey.shape[1] * ALIKE**2
    return near


def with_background(source: Source, image: ImageSpec) -> ImageSpec:
    """Return the same with a colour for `background: auto`, if images are transparent.

    It is white if what is visible of the first of them is dark, otherwise black.
    """
    if image.background != "auto" or image.channels == 4:
        return image
    usable, visible = 0, list[float]()
    for index in range(min(len(source), TRIED)):
        try:
            brightness = brightness_of_visible(source[index])
        except Exception:  # noqa: BLE001, S112 - told when all images are decoded
            continue
        visible += [] if brightness is None else [brightness]
        usable += 1
        if usable == FIRST:
            break
    if not visible:
        return image
    return replace(image, background="white" if np.mean(visible) < 0.5 else "black")
