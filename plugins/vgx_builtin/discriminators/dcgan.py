"""The discriminator of DCGAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class DcganDiscriminator(vgx.Discriminator, type="dcgan"):
    """The discriminator of DCGAN: stride-2 4x4 convolutions, one logit (Radford et al. 2016).

    LeakyReLU after each, BatchNorm before it in all but the first, then a convolution over
    everything that is left: at 64 pixels the default goes 64-32-16-8-4-1. Weights start from
    N(0, 0.02) (section 4 of the paper).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 256, 512, 1024)
    """Channels after each halving."""
    norm: Literal["batch", "none"] = "batch"
    """What normalises before each LeakyReLU but the first; gradient penalties need `none`."""
    spectral: bool = False
    """Spectral norm of every convolution (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        del latent
        from torch import nn

        from vgx_builtin.modules import (
            StagedDiscriminator,
            draw_as_dcgan,
            halving_stages,
            last_sides,
            spectrally_normed,
        )

        sides = last_sides("discriminator dcgan", image, len(self.widths))
        stages = halving_stages(image.channels, self.widths, self.norm)
        head = nn.Sequential(nn.Conv2d(self.widths[-1], 1, sides), nn.Flatten())
        network = draw_as_dcgan(StagedDiscriminator(stages, head))
        return spectrally_normed(network) if self.spectral else network
