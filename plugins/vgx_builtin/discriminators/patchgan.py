"""The plain convolutional PatchGAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class PatchGan(vgx.Discriminator, type="patchgan"):
    """4x4 convolutions that score overlapping patches (Isola et al. 2017, section 6.1.2).

    C64-C128-C256-C512 by default: all but the last have stride 2, the first has no BatchNorm, and a
    last convolution gives the logits. Each logit sees 70x70 pixels.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (64, 128, 256, 512)
    """Channels of each convolution; fewer give smaller patches."""

    def build(self, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, h, w]."""
        from torch import nn

        from vgx.errors import RecipeError
        from vgx_builtin.modules import SLOPE, PatchDiscriminator

        # Two convolutions of stride 1 take one pixel each from what the halvings leave.
        if image.size // 2 ** (len(self.widths) - 1) < 3:
            raise RecipeError(
                f"discriminator patchgan: {image.size} pixels leave no patch after "
                f"{len(self.widths) - 1} halvings; give fewer widths"
            )
        stages: list[nn.Module] = []
        before: int = image.channels
        for index, width in enumerate(self.widths):
            first, last = index == 0, index == len(self.widths) - 1
            layers: list[nn.Module] = [
                nn.Conv2d(before, width, 4, stride=1 if last else 2, padding=1, bias=first)
            ]
            if not first:
                layers.append(nn.BatchNorm2d(width))
            stages.append(nn.Sequential(*layers, nn.LeakyReLU(SLOPE)))
            before = width
        return PatchDiscriminator(stages, nn.Conv2d(before, 1, 4, padding=1))
