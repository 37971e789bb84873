"""A discriminator of images with their latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class PairConv(vgx.Discriminator, type="pair-conv"):
    """Tells images and their latents from decoded draws of N(0, I) and these (BiGAN).

    The joint discriminator of Donahue et al. 2017 and Dumoulin et al. 2017: stride-2 4x4
    convolutions on the image as in `dcgan`, one hidden layer on the latents, and one on both
    together. Smaller than theirs, without dropout and maxout.
    """

    judges: ClassVar = "pairs"

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    """Channels after each halving of the image."""
    joint: PositiveInt = 512
    """Units of the hidden layer on the latents, and of that on both."""
    norm: Literal["batch", "instance", "none"] = "none"
    """What normalises before each LeakyReLU of the convolutions but the first."""
    spectral: bool = False
    """Spectral norm of every layer (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1], z [B, *Z] -> Score with logits [B, 1]."""
        from torch import nn

        from vgx_builtin.critics import PairDiscriminator, linear_stages
        from vgx_builtin.modules import (
            draw_as_dcgan,
            halving_stages,
            last_sides,
            spectrally_normed,
        )

        height, width = last_sides("discriminator pair-conv", image, len(self.widths))
        stages = halving_stages(image.channels, self.widths, self.norm)
        of_latents = nn.Sequential(*linear_stages(latent.size, [self.joint]))
        both = self.widths[-1] * height * width + self.joint
        joint = nn.Sequential(*linear_stages(both, [self.joint]), nn.Linear(self.joint, 1))
        network = draw_as_dcgan(PairDiscriminator(stages, of_latents, joint))
        return spectrally_normed(network) if self.spectral else network
