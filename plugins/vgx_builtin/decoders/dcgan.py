"""The generator of DCGAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class DcganDecoder(vgx.Decoder, type="dcgan"):
    """The generator of DCGAN (Radford et al. 2016, figure 1), which gives logits instead of tanh.

    z is projected to a small map, and stride-2 4x4 transposed convolutions double it, BatchNorm
    and ReLU between all: at 64 pixels the default goes 4-8-16-32-64. Weights start from N(0, 0.02)
    (section 4 of the paper).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1024, 512, 256, 128)
    """Channels before each doubling."""
    norm: Literal["batch", "none"] = "batch"
    """What normalises before each ReLU."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, Z] -> logits [B, C, H, W]. The latent is flat."""
        from torch import nn

        from vgx_builtin.modules import draw_as_dcgan, flat_size, normalisation, smallest_sides

        size = flat_size("decoder dcgan", latent)
        sides = smallest_sides("decoder dcgan", image, len(self.widths))
        plain = self.norm == "none"  # BatchNorm takes the mean away, and a bias with it
        layers: list[nn.Module] = [
            nn.Unflatten(1, (size, 1, 1)),
            nn.ConvTranspose2d(size, self.widths[0], sides, bias=plain),
        ]
        for before, width in zip(self.widths, self.widths[1:], strict=False):
            layers += [
                *normalisation(self.norm, before),
                nn.ReLU(),
                nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=plain),
            ]
        last = self.widths[-1]
        layers += [*normalisation(self.norm, last), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(last, image.channels, 4, stride=2, padding=1))
        return draw_as_dcgan(nn.Sequential(*layers))
