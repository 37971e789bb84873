"""An encoder whose latents are points of a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx
from vgx_builtin.encoders.binary_spherical import MOST_BITS

if TYPE_CHECKING:
    from torch import nn


class FiniteScalar(vgx.Encoder, type="finite-scalar"):
    """FSQ: another encoder's means, each channel rounded to a level (Mentzer et al. 2023).

    A channel e with L levels is bounded and rounded: z = round(h tanh(e + s) - o) / floor(L / 2),
    with h = (L - 1)(1 - 0.001) / 2, o = 1/2 for an even L and else 0, and s = tan(o / h), as in the
    paper's appendix A.1. So z is in [-1, 1], and the gradient goes straight through the rounding.
    The codebook is all combinations of levels, is never learned and needs no loss. Weights that the
    mean does not depend on, those of logvar, are frozen.
    """

    inner: vgx.Encoder
    """The encoder whose mean is quantised."""
    levels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (8, 5, 5, 5)
    """Levels of each channel of the latent; the codebook has as many vectors as their product, here
    1,000. The paper advises 5 or more for each."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with `encoded`, `codes` [B, *Z]."""
        from vgx_builtin.quantisers.encoder import QuantisedEncoder
        from vgx_builtin.quantisers.grids import Grid
        from vgx_builtin.wrapping import mean_of

        if latent.shape[0] != len(self.levels):
            shape = [len(self.levels), *latent.shape[1:]]
            raise vgx.RecipeError(
                f"latent: finite-scalar has levels for {len(self.levels)} channels, and the latent "
                f"has {latent.shape[0]}; try latent={str(shape).replace(' ', '')}"
            )
        if math.prod(self.levels) > 2**MOST_BITS:
            raise vgx.RecipeError(
                f"encoder finite-scalar: levels: an index has at most {MOST_BITS} bits, and these "
                f"need {math.log2(math.prod(self.levels)):.0f}; take fewer channels or levels"
            )
        return QuantisedEncoder(mean_of(self.type, self.inner, image, latent), Grid(self.levels))
