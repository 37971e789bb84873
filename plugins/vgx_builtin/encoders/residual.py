"""An encoder of residual blocks, for flat and spatial latents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class ResidualEncoder(vgx.Encoder, type="residual"):
    """Residual blocks that halve by averaging, then layers for mu and logvar.

    A 3x3 convolution, then `blocks` blocks for each width, the first of which halves the image: at
    96 pixels the default goes 96-48-24-12. The blocks are those of SNGAN's discriminator (Miyato et
    al. 2018, appendix B), here with a norm. A flat latent is computed by linear layers; a spatial
    one, of shape [channels, height, width] at the last resolution, by 3x3 convolutions, as in the
    KL autoencoder of latent diffusion (Rombach et al. 2022, section 3.1).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    """Channels after each halving."""
    blocks: PositiveInt = 1
    """Residual blocks for each width."""
    norm: Literal["batch", "group", "none"] = "batch"
    """What normalises before each ReLU; `group` does not look at the rest of the batch."""
    spectral: bool = False
    """Spectral norm of every convolution and linear layer (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> Gaussian over [B, *Z]."""
        from torch import nn

        from vgx_builtin.modules import (
            GaussianEncoder,
            latent_sides,
            normalisation,
            spectrally_normed,
        )
        from vgx_builtin.residual import ResidualBlock

        sides = latent_sides("encoder residual", latent, image, len(self.widths))
        before = self.widths[0]
        layers: list[nn.Module] = [nn.Conv2d(image.channels, before, 3, padding=1)]
        for width in self.widths:
            layers.append(ResidualBlock(before, width, "halve", self.norm))
            layers += [
                ResidualBlock(width, width, "keep", self.norm) for _ in range(self.blocks - 1)
            ]
            before = width
        layers += [*normalisation(self.norm, before), nn.ReLU()]
        heads: list[nn.Module]
        if len(latent.shape) == 1:
            layers.append(nn.Flatten())
            heads = [nn.Linear(before * math.prod(sides), latent.shape[0]) for _ in range(2)]
        else:
            heads = [nn.Conv2d(before, latent.shape[0], 3, padding=1) for _ in range(2)]
        network = GaussianEncoder(nn.Sequential(*layers), *heads)
        return spectrally_normed(network) if self.spectral else network
