"""The encoder of a hierarchical VAE with two levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class Ladder(vgx.Encoder, type="ladder"):
    """The encoder of a ladder VAE with two levels of latents (Sonderby et al. 2016).

    Residual blocks halve the image. After `lower` of them a Gaussian N(mu, s^2) for the lower level
    is read, a map; at the end q(z2 | x), the posterior of the upper level, a vector. With z2 the
    decoder `ladder`, which must be beside it, gives the prior p(z1 | z2) of the lower level. The
    posterior q(z1 | x, z2) is the product of this prior and N(mu, s^2) (section 2.2).

    A latent is z2 and then e1 = (z1 - mu_p) / s_p, the lower level relative to its prior, as one
    vector. So N(0, I) is the prior of the whole, every sampler can draw it, and the divergence is
    the same in these coordinates, as with the residual posteriors of NVAE (Vahdat and Kautz 2020,
    section 3.2).

    Changed from Sonderby et al.: two levels, of which the lower one is spatial; residual blocks
    with group norm.
    """

    uses_decoder: ClassVar[bool] = True

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 128)
    """Channels after each halving."""
    lower: PositiveInt = 2
    """Halvings from the image to the lower level; the same as in the decoder."""
    top: PositiveInt = 32
    """Numbers in the upper level; the same as in the decoder. The rest of the latent is the lower
    level: a multiple of its places."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W], decoder -> posterior over [B, Z]. Z is flat."""
        from vgx_builtin.ladder import LadderEncoder
        from vgx_builtin.ladder_shape import lower_level

        lower, top, count = self.lower, self.top, len(self.widths)
        levels = lower_level("encoder ladder", latent, image, count, lower, top)
        return LadderEncoder(self.widths, lower, top, levels, image.channels)
