"""The generator of BigGAN."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class BigGanDecoder(vgx.Decoder, type="biggan"):
    """BigGAN's generator (Brock et al. 2019, appendix B), which gives logits instead of tanh.

    The latent is cut into as many pieces as there are widths, equal but for one number. A linear
    layer makes the first map of the first piece. Each further piece, joined with a learned vector
    for the label that all blocks share, is the condition of one residual block: gain and bias of
    its BatchNorm are linear in it. A block doubles by repeating each place. At 64 pixels the
    default goes 4-8-16-32-64. Weights start orthogonal.

    Images are drawn with BatchNorm's averages. With `train.ema` these are means over many passes,
    taken anew for each checkpoint: the "standing statistics" of the paper. The authors' models have
    some for each truncation. Here they are of N(0, I), also for the sampler `truncation`: the maps
    of truncated latents vary less than they say, so a small `threshold` costs contrast.
    """

    conditional: ClassVar[bool] = True

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (256, 256, 128, 64, 32)
    """Channels of the first map, and after each doubling."""
    attention: PositiveInt | None = None
    """The shorter side, in pixels, of the map that self-attention follows; `null`: none."""
    embedding: PositiveInt = 128
    """The length of the vector for a label."""
    spectral: bool = True
    """Spectral norm of every convolution and linear layer (Miyato et al. 2018)."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, Z], labels [B] -> logits [B, C, H, W]. The latent is flat."""
        from vgx_builtin.biggan import BigGanGenerator, orthogonal, place_of
        from vgx_builtin.conditioning import classes
        from vgx_builtin.modules import flat_size, smallest_sides, spectrally_normed

        count, size = classes("decoder biggan", image), flat_size("decoder biggan", latent)
        if size < len(self.widths):
            pieces = f"each of {len(self.widths)} widths wants a number of the latent"
            raise vgx.RecipeError(f"latent: decoder biggan: {size}: {pieces}; give more")
        blocks = list(pairwise(self.widths))
        height, width = sides = smallest_sides("decoder biggan", image, len(blocks))
        maps = [min(height, width) * 2**i for i in range(1, len(self.widths))]
        attended = place_of("decoder biggan", self.attention, maps)
        network = orthogonal(
            BigGanGenerator(size, count, self.embedding, blocks, sides, image.channels, attended)
        )
        return spectrally_normed(network) if self.spectral else network
