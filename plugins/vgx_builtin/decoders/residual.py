"""A decoder of residual blocks, for flat and spatial latents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class ResidualDecoder(vgx.Decoder, type="residual"):
    """Residual blocks that double by repeating each place, then a 3x3 convolution.

    `blocks` blocks for each width, the last of which doubles the image: at 96 pixels the default
    goes 12-24-48-96. The blocks are those of SNGAN's generator (Miyato et al. 2018, appendix B). A
    flat latent enters by a linear layer; a spatial one, of shape [channels, height, width] at the
    first resolution, by a 3x3 convolution, as in the KL autoencoder of latent diffusion (Rombach et
    al. 2022, section 3.1).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128, 64)
    """Channels before each doubling."""
    blocks: PositiveInt = 1
    """Residual blocks for each width."""
    norm: Literal["batch", "group", "none"] = "batch"
    """What normalises before each ReLU; `group` does not look at the rest of the batch."""
    spectral: bool = False
    """Spectral norm of every convolution and linear layer (Miyato et al. 2018)."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from torch import nn

        from vgx_builtin.modules import glorot, latent_sides, normalisation, spectrally_normed
        from vgx_builtin.residual import ResidualBlock

        sides = latent_sides("decoder residual", latent, image, len(self.widths))
        first, last = self.widths[0], self.widths[-1]
        layers: list[nn.Module]
        if len(latent.shape) == 1:
            layers = [
                glorot(nn.Linear(latent.shape[0], first * math.prod(sides))),
                nn.Unflatten(1, (first, *sides)),
            ]
        else:
            layers = [nn.Conv2d(latent.shape[0], first, 3, padding=1)]
        for width, after in zip(self.widths, (*self.widths[1:], last), strict=True):
            layers += [
                ResidualBlock(width, width, "keep", self.norm) for _ in range(self.blocks - 1)
            ]
            layers.append(ResidualBlock(width, after, "double", self.norm))
        layers += [*normalisation(self.norm, last), nn.ReLU()]
        layers.append(glorot(nn.Conv2d(last, image.channels, 3, padding=1)))
        network = nn.Sequential(*layers)
        return spectrally_normed(network) if self.spectral else network
