"""The modules of TAESD, named as in diffusers' `AutoencoderTiny`.

Their weights have the same names and shapes, so they are exchanged without a change.

Letters: B images, C channels, H x W pixels, Z the latent shape, h x w places.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from vgx_builtin.autoencoder_blocks import TinyBlock
from vgx_builtin.autoencoder_ends import image_logits
from vgx_builtin.modules import at_least_float32
from vgx_builtin.posteriors import Point

BOUND = 3  # of the latents that the decoder's layers get


class TinyEncoder(nn.Module):
    """Images in [0, 1] -> a latent without variance."""

    def __init__(self, channels: int, latent: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        layers = nn.Sequential(*_down(channels, latent, width, blocks))
        self.encoder = nn.Sequential(OrderedDict(layers=layers))

    def forward(self, images: Tensor) -> Point:
        """Images [B, C, H, W] in [0, 1] -> a point [B, *Z], at least in float32."""
        z = self.encoder(images)
        return Point(at_least_float32(z))


class TinyDecoder(nn.Module):
    """Latents -> logits of images in [0, 1]."""

    def __init__(self, channels: int, latent: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        layers = nn.Sequential(*_up(channels, latent, width, blocks))
        self.decoder = nn.Sequential(OrderedDict(layers=layers))

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, *Z] -> logits [B, C, H, W], at least in float32.

        Latents are bounded softly: 3 tanh(z / 3).
        """
        return image_logits(self.decoder((z / BOUND).tanh() * BOUND))


def _down(channels: int, latent: int, width: int, blocks: Sequence[int]) -> Iterator[nn.Module]:
    """Give the encoder's layers: each resolution but the first begins with a halving."""
    for number, count in enumerate(blocks):
        if number == 0:
            yield nn.Conv2d(channels, width, 3, padding=1)
        else:
            yield nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False)
        for _ in range(count):
            yield TinyBlock(width)
    yield nn.Conv2d(width, latent, 3, padding=1)


def _up(channels: int, latent: int, width: int, blocks: Sequence[int]) -> Iterator[nn.Module]:
    """Give the decoder's layers: each resolution but the last ends with a doubling."""
    yield nn.Conv2d(latent, width, 3, padding=1)
    yield nn.ReLU()
    for number, count in enumerate(blocks, 1):
        for _ in range(count):
            yield TinyBlock(width)
        if number < len(blocks):
            yield nn.Upsample(scale_factor=2)
            yield nn.Conv2d(width, width, 3, padding=1, bias=False)
    yield nn.Conv2d(width, channels, 3, padding=1)
