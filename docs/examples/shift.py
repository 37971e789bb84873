"""An augmentation that shifts images by a few pixels."""

import torch
import vgx
from pydantic import PositiveInt
from torch import Generator, Tensor


class Shift(vgx.Augmentation, type="shift"):
    """Shift each image by a few pixels along each axis; the pixels at the edge are repeated."""

    pixels: PositiveInt = 2
    """Largest shift, in pixels."""

    def build(self, image: vgx.ImageSpec):
        def shift(images: Tensor, generator: Generator) -> Tensor:
            device, largest = images.device, self.pixels
            shape = (2, len(images), 1)  # a vertical and a horizontal shift for each image
            shifts = torch.randint(-largest, largest + 1, shape, generator=generator, device=device)
            rows, columns = (
                (torch.arange(side, device=device) + shift).clamp(0, side - 1)
                for side, shift in zip((image.height, image.width), shifts, strict=True)
            )  # [B, H] and [B, W]
            shifted = images.gather(2, rows[:, None, :, None].expand_as(images))
            return shifted.gather(3, columns[:, None, None, :].expand_as(images))

        return shift


@vgx.hookimpl
def register_components(register):
    register(Shift)
