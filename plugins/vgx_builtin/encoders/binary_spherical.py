"""An encoder whose latents are corners of a cube."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vgx

if TYPE_CHECKING:
    from torch import nn


MOST_BITS = 62  # of an index, which is a signed number of 64 bits


class BinarySpherical(vgx.Encoder, type="binary-spherical"):
    """BSQ: another encoder's means as directions, each channel one bit (Zhao et al. 2024).

    u = e / |e| and z_d = sign(u_d) / sqrt(F) for F channels, so both have length 1, and bit d of
    the index says whether u_d > 0. The gradient with respect to z goes straight through to u. The
    codebook has 2 ** F vectors and is never learned; the loss `bit-entropy` is for the use of all
    of it. Weights that the mean does not depend on, those of logvar, are frozen.
    """

    inner: vgx.Encoder
    """The encoder whose mean is quantised."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with `encoded`, `codes` [B, *Z]."""
        from vgx_builtin.quantisers.encoder import QuantisedEncoder
        from vgx_builtin.quantisers.grids import Corners
        from vgx_builtin.wrapping import mean_of

        if latent.shape[0] > MOST_BITS:
            raise vgx.RecipeError(
                f"latent: binary-spherical makes a bit of each channel, and an index has at most "
                f"{MOST_BITS} bits; the latent has {latent.shape[0]} channels"
            )
        return QuantisedEncoder(
            mean_of(self.type, self.inner, image, latent), Corners(latent.shape[0])
        )
