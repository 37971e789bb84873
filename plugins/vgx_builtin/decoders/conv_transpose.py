"""A plain transposed-convolutional decoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class ConvTranspose(vgx.Decoder, type="conv-transpose"):
    """A linear layer, then stride-2 4x4 transposed convolutions, a norm and LeakyReLU between.

    Each width doubles the image: at 96 pixels the default starts from 512 x 3 x 3 = 4608 values and
    goes 3-6-12-24-48-96. The kernel's size is a multiple of the stride, against checkerboards
    (Odena et al. 2016). The form of DCGAN's generator (Radford et al. 2016).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 256, 128, 64, 32)
    """Channels before each doubling."""
    norm: Literal["batch", "group", "none"] = "batch"
    """What normalises before each LeakyReLU; `group` does not look at the rest of the batch."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, Z] -> logits [B, C, H, W]. The latent is flat."""
        from torch import nn

        from vgx_builtin.modules import SLOPE, flat_size, normalisation, smallest_sides

        sides = smallest_sides("decoder conv-transpose", image, len(self.widths))
        first = self.widths[0]
        layers: list[nn.Module] = [
            nn.Linear(flat_size("decoder conv-transpose", latent), first * math.prod(sides)),
            nn.Unflatten(1, (first, *sides)),
        ]
        bias = self.norm != "batch"  # which takes the mean away, and a bias with it
        for before, width in zip(self.widths, self.widths[1:], strict=False):
            layers += [
                nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=bias),
                *normalisation(self.norm, width),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]

        layers.append(nn.ConvTranspose2d(self.widths[-1], image.channels, 4, stride=2, padding=1))
        return nn.Sequential(*layers)
