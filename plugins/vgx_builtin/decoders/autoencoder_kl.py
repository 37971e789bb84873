"""The decoder of diffusers' `AutoencoderKL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderKLDecoder(vgx.Decoder, type="autoencoder-kl"):
    """The decoder of latent diffusion's KL autoencoder, as diffusers builds `AutoencoderKL`.

    Two residual blocks around self-attention, then `blocks` + 1 residual blocks for each width, all
    but the last followed by a doubling (Rombach et al. 2022, section 3.1 and E). The images are
    (y + 1) / 2, cut off at 0 and 1, where y is the output of the last convolution; so `bce`, whose
    gradient is without bound there, is no loss for it. The latent is [channels, height, width] of
    the first resolution.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128, 64)
    """Channels at each resolution; n widths double the latent n - 1 times."""
    blocks: PositiveInt = 2
    """Residual blocks for each width, less one."""
    groups: PositiveInt = 32
    """Groups of each GroupNorm; it must divide every width."""
    attention: bool = True
    """Self-attention at the first resolution."""
    quant_conv: bool = True
    """A 1x1 convolution of the latents at the beginning."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from vgx_builtin.autoencoder_kl import Decoder, KLDecoder, require_fit

        require_fit("decoder autoencoder-kl", self.widths, self.groups, image, latent)
        channels = latent.shape[0]
        decoder = Decoder(
            image.channels, channels, self.widths, self.blocks, self.groups,
            attention=self.attention,
        )  # fmt: skip
        return KLDecoder(decoder, channels, quant_conv=self.quant_conv)
