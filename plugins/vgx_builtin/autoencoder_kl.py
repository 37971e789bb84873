"""The modules of latent diffusion's KL autoencoder, named as in diffusers' `AutoencoderKL`.

Their weights have the same names and shapes, so they are exchanged without a change.

Letters: B images, C channels, H x W pixels, F and G features, h x w places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.modules import pixels, smallest_sides

EPS = 1e-6  # of the norms
EDGE = 1e-6  # distance of the images from 0 and 1, where their logits are infinite


def require_fit(
    part: str, widths: Sequence[int], groups: int, image: vgx.ImageSpec, latent: vgx.LatentSpec
) -> None:
    """Raise `RecipeError` for a latent, or for groups, that the widths do not fit."""
    if odd := [width for width in widths if width % groups]:
        most = math.gcd(*widths)
        raise vgx.RecipeError(
            f"{part}: groups: {groups} does not divide the width {odd[0]}; {most} divides all"
        )
    height, width = smallest_sides(part, image, len(widths) - 1)
    if latent.shape[1:] != (height, width):
        raise vgx.RecipeError(
            f"latent: {part} halves {pixels(image)} {len(widths) - 1} times to {height}x{width}, "
            f"and the shape {list(latent.shape)} is not of that; "
            f"try latent=[{latent.shape[0] if len(latent.shape) > 1 else 4},{height},{width}]"
        )


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, beside a shortcut."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, EPS)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, after, EPS)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        if before != after:
            self.conv_shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h, w]."""
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        shortcut = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        summed: Tensor = shortcut + out
        return summed


class Attention(nn.Module):
    """Self-attention of all places, with one head, beside a shortcut."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        places = self.group_norm(x).flatten(2).mT  # [B, h*w, F]
        query, key, value = (
            layer(places).unsqueeze(1) for layer in (self.to_q, self.to_k, self.to_v)
        )  # [B, 1, h*w, F]
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1)  # [B, h*w, F]
        out: Tensor = self.to_out[0](mixed).mT.reshape(x.shape)  # [B, F, h, w]
        return x + out


class MidBlock(nn.Module):
    """A residual block, attention if wanted, and another residual block."""

    def __init__(self, width: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        for module in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = module(x)
        return x


class Down(nn.Module):
    """A 3x3 convolution of stride 2; its border is below and right of the image only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, 2h, 2w] -> [B, F, h, w]."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Up(nn.Module):
    """Each place repeated, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F, 2h, 2w]."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DownBlock(nn.Module):
    """Residual blocks of one width, then half the places unless it is the last."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, *, last: bool) -> None:
        super().__init__()
        widths = [before] + [after] * blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(*pair, groups) for pair in zip(widths, widths[1:], strict=False)
        )
        self.downsamplers = nn.ModuleList([] if last else [Down(after)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, 2h, 2w] -> [B, G, h, w], or [B, G, 2h, 2w] for the last."""
        for module in (*self.resnets, *self.downsamplers):
            x = module(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks of one width, then twice the places on a side unless it is the last."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, *, last: bool) -> None:
        super().__init__()
        widths = [before] + [after] * blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(*pair, groups) for pair in zip(widths, widths[1:], strict=False)
        )
        self.upsamplers = nn.ModuleList([] if last else [Up(after)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, 2h, 2w], or [B, G, h, w] for the last."""
        for module in (*self.resnets, *self.upsamplers):
            x = module(x)
        return x


class Encoder(nn.Module):
    """From images to the parameters of the posterior, before `quant_conv`."""

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], blocks: int, groups: int,
        *, attention: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.down_blocks = nn.ModuleList(
            DownBlock(*pair, blocks, groups, last=number == len(widths) - 1)
            for number, pair in enumerate(pairs)
        )
        self.mid_block = MidBlock(widths[-1], groups, attention=attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> [B, 2 * latent, h, w]."""
        x = self.conv_in(x)
        for module in (*self.down_blocks, self.mid_block):
            x = module(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class Decoder(nn.Module):
    """From latents, after `post_quant_conv`, to images."""

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], blocks: int, groups: int,
        *, attention: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_in = nn.Conv2d(latent, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups, attention=attention)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.up_blocks = nn.ModuleList(
            UpBlock(*pair, blocks + 1, groups, last=number == len(widths) - 1)
            for number, pair in enumerate(pairs)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, latent, h, w] -> images [B, C, H, W], about in [-1, 1]."""
        x = self.conv_in(x)
        for module in (self.mid_block, *self.up_blocks):
            x = module(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class KLEncoder(nn.Module):
    """The encoder with the range of vgx: images in [0, 1] -> a Gaussian."""

    def __init__(self, encoder: Encoder, latent: int, *, quant_conv: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if quant_conv else nn.Identity()

    def forward(self, images: Tensor) -> vgx.Gaussian:
        """Images [B, C, H, W] in [0, 1] -> a Gaussian over [B, *Z], at least in float32."""
        moments = self.quant_conv(self.encoder(images * 2 - 1))
        wide = torch.promote_types(moments.dtype, torch.float32)
        mu, logvar = moments.to(wide).chunk(2, 1)
        return vgx.Gaussian(mu, logvar)


class KLDecoder(nn.Module):
    """The decoder with the range of vgx: latents -> logits of images in [0, 1]."""

    def __init__(self, decoder: Decoder, latent: int, *, quant_conv: bool) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if quant_conv else nn.Identity()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, *Z] -> logits [B, C, H, W], at least in float32.

        Their sigmoid is (y + 1) / 2, cut off at 0 and 1, where y is the image in [-1, 1]. The
        gradient passes as if nothing were cut off, so that no pixel stops learning.
        """
        y = self.decoder(self.post_quant_conv(z))
        images = (y.to(torch.promote_types(y.dtype, torch.float32)) + 1) / 2
        inside = images.clamp(EDGE, 1 - EDGE)
        return (images + (inside - images).detach()).logit()
