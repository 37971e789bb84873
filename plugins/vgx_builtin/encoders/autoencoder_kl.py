"""The encoder of diffusers' `AutoencoderKL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderKLEncoder(vgx.Encoder, type="autoencoder-kl"):
    """The encoder of latent diffusion's KL autoencoder, as diffusers builds `AutoencoderKL`.

    A 3x3 convolution, `blocks` residual blocks for each width, all but the last followed by a
    halving, then two blocks around self-attention (Rombach et al. 2022, section 3.1 and E). With
    the decoder of the same type, `vgx export` writes a folder that diffusers opens, and `vgx
    import` reads one. The latent is [channels, height, width] of the last resolution.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    """Channels at each resolution; n widths halve the image n - 1 times."""
    blocks: PositiveInt = 2
    """Residual blocks for each width."""
    groups: PositiveInt = 32
    """Groups of each GroupNorm; it must divide every width."""
    attention: bool = True
    """Self-attention at the last resolution."""
    quant_conv: bool = True
    """A 1x1 convolution of mean and logvar at the end."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> Gaussian over [B, *Z]."""
        from vgx_builtin.autoencoder_kl import Encoder, KLEncoder, require_fit

        require_fit("encoder autoencoder-kl", self.widths, self.groups, image, latent)
        channels = latent.shape[0]
        encoder = Encoder(
            image.channels, channels, self.widths, self.blocks, self.groups,
            attention=self.attention,
        )  # fmt: skip
        return KLEncoder(encoder, channels, quant_conv=self.quant_conv)
