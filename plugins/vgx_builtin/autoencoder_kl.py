"""The modules of latent diffusion's KL autoencoder, named as in diffusers' `AutoencoderKL`.

Their weights have the same names and shapes, so they are exchanged without a change.

Letters: B images, C channels, H x W pixels, Z the latent shape, h x w places.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

import vgx
from vgx_builtin.autoencoder_blocks import (
    EPS,
    DownBlock,
    MidBlock,
    UpBlock,
    levels,
)
from vgx_builtin.autoencoder_ends import image_logits, require_latent
from vgx_builtin.modules import at_least_float32


def require_fit(
    part: str, widths: Sequence[int], groups: int, image: vgx.ImageSpec, latent: vgx.LatentSpec
) -> None:
    """Raise `RecipeError` for a latent, or for groups, that the widths do not fit."""
    if odd := [width for width in widths if width % groups]:
        most = math.gcd(*widths)
        raise vgx.RecipeError(
            f"{part}: groups: {groups} does not divide the width {odd[0]}; {most} divides all"
        )
    require_latent(part, len(widths) - 1, image, latent)


class Encoder(nn.Sequential):
    """Images [B, C, H, W] in [-1, 1] -> parameters of the posterior [B, 2 * latent, h, w].

    The convolution `quant_conv` comes after it.
    """

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], blocks: int, groups: int,
        *, attention: bool,
    ) -> None:  # fmt: skip
        super().__init__(OrderedDict(
            conv_in=nn.Conv2d(channels, widths[0], 3, padding=1),
            down_blocks=levels(DownBlock, widths, blocks, groups),
            mid_block=MidBlock(widths[-1], groups, attention=attention),
            conv_norm_out=nn.GroupNorm(groups, widths[-1], EPS),
            conv_act=nn.SiLU(),
            conv_out=nn.Conv2d(widths[-1], 2 * latent, 3, padding=1),
        ))  # fmt: skip


class Decoder(nn.Sequential):
    """Latents [B, latent, h, w] -> images [B, C, H, W], about in [-1, 1].

    The convolution `post_quant_conv` comes before it.
    """

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], blocks: int, groups: int,
        *, attention: bool,
    ) -> None:  # fmt: skip
        super().__init__(OrderedDict(
            conv_in=nn.Conv2d(latent, widths[0], 3, padding=1),
            mid_block=MidBlock(widths[0], groups, attention=attention),
            up_blocks=levels(UpBlock, widths, blocks + 1, groups),
            conv_norm_out=nn.GroupNorm(groups, widths[-1], EPS),
            conv_act=nn.SiLU(),
            conv_out=nn.Conv2d(widths[-1], channels, 3, padding=1),
        ))  # fmt: skip


class KLEncoder(nn.Module):
    """The encoder with the range of vgx: images in [0, 1] -> a Gaussian."""

    def __init__(self, encoder: Encoder, latent: int, *, quant_conv: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if quant_conv else nn.Identity()

    def forward(self, images: Tensor) -> vgx.Gaussian:
        """Images [B, C, H, W] in [0, 1] -> a Gaussian over [B, *Z], at least in float32."""
        moments = self.quant_conv(self.encoder(images * 2 - 1))
        mu, logvar = at_least_float32(moments).chunk(2, 1)
        return vgx.Gaussian(mu, logvar)


class KLDecoder(nn.Module):
    """The decoder with the range of vgx: latents -> logits of images in [0, 1]."""

    def __init__(self, decoder: Decoder, latent: int, *, quant_conv: bool) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if quant_conv else nn.Identity()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, *Z] -> logits [B, C, H, W], at least in float32.

        Their sigmoid is (y + 1) / 2, cut off at 0 and 1, where y is the image in [-1, 1].
        """
        y = self.decoder(self.post_quant_conv(z))
        return image_logits((at_least_float32(y) + 1) / 2)
