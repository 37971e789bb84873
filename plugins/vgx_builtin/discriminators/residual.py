"""The discriminator of SNGAN: residual blocks and one logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class ResidualDiscriminator(vgx.Discriminator, type="residual"):
    """Residual blocks without norm, summed over all places to one logit (Miyato et al. 2018).

    Each width halves the image, and one more block keeps its size, as in the paper's network for
    ImageNet: at 96 pixels the default goes 96-48-24-12-6-6. ReLU, the sum over places and a linear
    layer give a logit [B, 1]. The features are the blocks' outputs. Blocks and first weights are
    those of the authors' program.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256, 512)
    """Channels after each halving."""
    spectral: bool = True
    """Spectral norm of every convolution and linear layer; not needed with gradient penalties."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        del latent
        from torch import nn

        from vgx_builtin.modules import StagedDiscriminator, glorot, last_sides, spectrally_normed
        from vgx_builtin.residual import ResidualBlock, SumPool, halving_blocks

        last_sides("discriminator residual", image, len(self.widths))
        last = self.widths[-1]
        stages = halving_blocks(image.channels, self.widths)
        stages.append(ResidualBlock(last, last, "keep"))
        head = nn.Sequential(nn.ReLU(), SumPool(), glorot(nn.Linear(last, 1)))
        network = StagedDiscriminator(stages, head)
        return spectrally_normed(network) if self.spectral else network
