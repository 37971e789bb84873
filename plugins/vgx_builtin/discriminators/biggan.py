"""The discriminator of BigGAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class BigGanDiscriminator(vgx.Discriminator, type="biggan"):
    """BigGAN's discriminator: residual blocks and projection (Brock et al. 2019, appendix B).

    `projection` around `residual`, changed as in the paper: the first convolution of a block has as
    many filters as the second, weights start orthogonal, and self-attention may follow one map. A
    block halves by averages of 2x2 places, and one more keeps its size: at 64 pixels the default
    goes 64-32-16-8-4-4. The logit [B, 1] is linear in h, the sum over places of the ReLU of the
    last features, plus <v_y, h> with a learned vector v_y for the label (Miyato and Koyama 2018).
    """

    conditional: ClassVar[bool] = True

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128, 256)
    """Channels after each halving."""
    attention: PositiveInt | None = None
    """The shorter side, in pixels, of the map that self-attention follows; `null`: none."""
    spectral: bool = True
    """Spectral norm of every layer, the vectors for labels too (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1], labels [B] -> Score with logits [B, 1]."""
        del latent
        from torch import nn
        from torch.nn.utils.parametrizations import spectral_norm

        from vgx_builtin.biggan import NonLocal, orthogonal, place_of
        from vgx_builtin.conditioning import ProjectionDiscriminator, classes
        from vgx_builtin.modules import StagedDiscriminator, last_sides, spectrally_normed
        from vgx_builtin.residual import ResidualBlock, SumPool, halving_blocks

        count = classes("discriminator biggan", image)
        last_sides("discriminator biggan", image, len(self.widths))
        maps = [min(image.height, image.width) // 2 ** (i + 1) for i in range(len(self.widths))]
        attended = place_of("discriminator biggan", self.attention, maps)
        last = self.widths[-1]
        stages = halving_blocks(image.channels, self.widths, wide=True)
        if attended is not None:
            stages[attended] = nn.Sequential(stages[attended], NonLocal(self.widths[attended]))
        stages.append(ResidualBlock(last, last, "keep"))
        head = nn.Sequential(nn.ReLU(), SumPool(), nn.Linear(last, 1))
        inner = StagedDiscriminator(stages, head)
        network = ProjectionDiscriminator(inner, count, last, mean=False)
        orthogonal(network)
        if self.spectral:
            spectral_norm(network.embedding)
            spectrally_normed(network)
        return network
