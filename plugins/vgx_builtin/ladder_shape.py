"""The shape of the lower level of `ladder`."""

from __future__ import annotations

import vgx
from vgx_builtin.modules import flat_size, smallest_sides


def lower_level(
    part: str, latent: vgx.LatentSpec, image: vgx.ImageSpec, widths: int, lower: int, top: int
) -> vgx.LatentSpec:
    """Return the shape [c, h, w] of the lower level. Raises `RecipeError` when none fits."""
    size = flat_size(part, latent)
    if lower > widths:
        raise vgx.RecipeError(f"{part}: lower: {lower}: there are only {widths} widths")
    smallest_sides(part, image, widths)
    height, width = smallest_sides(part, image, lower)
    channels = max((size - top) // (height * width), 1)
    if top + channels * height * width != size:
        fitting = [top + n * height * width for n in (channels, channels + 1)]
        places = f"{top} of the upper level, and a multiple of {height}x{width} of the lower one"
        instead = " or ".join(f"latent={each}" for each in fitting)
        raise vgx.RecipeError(f"latent: {size}: {part} has {places}; try {instead}")
    return vgx.LatentSpec((channels, height, width))
