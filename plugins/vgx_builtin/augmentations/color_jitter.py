"""Changes of colour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat

import vgx

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor


class ColorJitter(vgx.Augmentation, type="color-jitter"):
    """Change brightness, contrast, saturation and hue of each image, in this order.

    The changes are those of torchvision's ColorJitter, which draws their order too; here each image
    of a batch has its own factors. With x the image and f the factor, and each result clamped to
    0..1: brightness is f x; contrast is f x + (1 - f) m, m the mean grey value of the whole image;
    saturation is f x + (1 - f) g, g the grey value of each pixel; hue is a turn of the colour
    circle. The alpha of RGBA images stays as it is. Of images with 2, 5 or more channels only
    brightness and contrast change, as of greyscale ones. The defaults change as much as those of
    DiffAugment (Zhao et al. 2020).
    """

    brightness: NonNegativeFloat = 0.5
    """The factor is drawn uniformly from 1 - brightness, or 0, to 1 + brightness."""
    contrast: NonNegativeFloat = 0.5
    """The factor is drawn uniformly from 1 - contrast, or 0, to 1 + contrast."""
    saturation: NonNegativeFloat = 1.0
    """The factor is drawn uniformly from 1 - saturation, or 0, to 1 + saturation; it changes no
    greyscale image."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The turn is drawn uniformly from -hue to hue, 0.5 being half of the circle; it changes no
    greyscale image."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make the jitter: images [B, C, H, W] -> the same shape."""
        return self._in_colour if image.channels in (3, 4) else self._in_grey

    def _in_grey(self, images: Tensor, generator: Generator) -> Tensor:
        from kornia import enhance

        images = enhance.adjust_brightness_accumulative(
            images, _factors(self.brightness, images, generator)
        )
        return enhance.adjust_contrast_with_mean_subtraction(
            images, _factors(self.contrast, images, generator)
        )

    def _in_colour(self, images: Tensor, generator: Generator) -> Tensor:
        import torch
        from kornia import enhance

        colours, alpha = images[:, :3], images[:, 3:]
        colours = enhance.adjust_saturation_with_gray_subtraction(
            self._in_grey(colours, generator), _factors(self.saturation, images, generator)
        )
        if self.hue:  # 0 avoids the conversion to HSV and back
            turns = images.new_empty(len(images)).uniform_(-1, 1, generator=generator)  # [B]
            colours = enhance.adjust_hue(colours, turns * (2 * math.pi * self.hue))
        return torch.cat([colours, alpha], 1)


def _factors(most: float, images: Tensor, generator: Generator) -> Tensor:
    """[B]  Uniform draws from 1 - most, but not below 0, to 1 + most."""
    least = max(0.0, 1 - most)
    return images.new_empty(len(images)).uniform_(least, 1 + most, generator=generator)
