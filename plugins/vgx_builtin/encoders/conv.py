"""A plain convolutional encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class Conv(vgx.Encoder, type="conv"):
    """Stride-2 3x3 convolutions with BatchNorm and LeakyReLU, then linear layers for mu and logvar.

    Each width halves the image: at 96 pixels the default goes 96-48-24-12-6-3 and ends in
    512 x 3 x 3 = 4608 features. The form of DCGAN's discriminator (Radford et al. 2016) as an
    encoder (Larsen et al. 2016).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128, 256, 512)
    """Channels after each halving."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> Gaussian over [B, Z]. The latent is flat."""
        from torch import nn

        from vgx_builtin.modules import SLOPE, GaussianEncoder, flat_size, smallest_sides

        size = flat_size("encoder conv", latent)
        sides = smallest_sides("encoder conv", image, len(self.widths))
        layers: list[nn.Module] = []
        before: int = image.channels
        for width in self.widths:
            # BatchNorm takes the mean away, and a bias with it.
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            before = width
        features = before * math.prod(sides)
        trunk = nn.Sequential(*layers, nn.Flatten())
        return GaussianEncoder(trunk, nn.Linear(features, size), nn.Linear(features, size))
