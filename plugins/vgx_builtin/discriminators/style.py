"""The discriminator of StyleGAN2."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class StyleDiscriminator(vgx.Discriminator, type="style"):
    """The discriminator of StyleGAN2: residual blocks with blurred halving (Karras et al. 2020).

    A 1x1 convolution of the image, then a block for each halving: two 3x3 convolutions, beside a
    1x1 convolution, and the sum divided by sqrt 2 (figure 7c, `resnet`). Before the last 3x3
    convolution stands the deviation over images of the minibatch (Karras et al. 2018, section 3):
    so the score of an image depends on the others. Two linear layers give a logit [B, 1]. Learning
    rates are equalised. The features are the outputs of the first convolution and of the blocks.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 512, 512, 512, 512)
    """Channels at each resolution; n widths halve the image n - 1 times. The default is for 64
    pixels, which end at 4."""
    group: PositiveInt = 4
    """Images whose deviation is taken together: at most so many, and a number that divides the
    minibatch. With 1 the feature tells nothing."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        del latent
        from torch import nn

        from vgx_builtin.discriminators.style_network import MinibatchDeviation, StyleBlock
        from vgx_builtin.modules import StagedDiscriminator, smallest_sides
        from vgx_builtin.style_layers import EqualConv, EqualLinear, Leaky

        widths, last = self.widths, self.widths[-1]
        height, width = smallest_sides("discriminator style", image, len(widths) - 1)
        stages: list[nn.Module] = [nn.Sequential(EqualConv(image.channels, widths[0], 1), Leaky())]
        for before, after in pairwise(widths):
            stages.append(StyleBlock(before, after))
        head = nn.Sequential(
            MinibatchDeviation(self.group),
            EqualConv(last + 1, last, 3),
            Leaky(),
            nn.Flatten(),
            EqualLinear(last * height * width, last),
            Leaky(),
            EqualLinear(last, 1),
        )
        return StagedDiscriminator(stages, head)
