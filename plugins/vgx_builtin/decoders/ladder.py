"""The decoder of a hierarchical VAE with two levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class LadderDecoder(vgx.Decoder, type="ladder"):
    """The decoder of a ladder VAE with two levels of latents (Sonderby et al. 2016).

    The upper level z2, a vector, enters by a linear layer, and residual blocks double its features.
    Where `lower` doublings are left, they give the prior of the lower level, N(mu_p, s_p^2) at each
    place, and z1 = mu_p + s_p e1 joins them; e1 is the rest of the latent. The blocks that follow
    make the image of both. The encoder `ladder` says what the latents are and what is changed.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 128, 64)
    """Channels before each doubling."""
    lower: PositiveInt = 2
    """Doublings from the lower level to the image; the same as in the encoder."""
    top: PositiveInt = 32
    """Numbers in the upper level; the same as in the encoder."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, Z] -> logits [B, C, H, W]. The latent is flat."""
        from vgx_builtin.ladder import LadderDecoder as Network
        from vgx_builtin.ladder_shape import lower_level

        lower, top, count = self.lower, self.top, len(self.widths)
        levels = lower_level("decoder ladder", latent, image, count, lower, top)
        return Network(self.widths, lower, top, levels, image.channels)
