"""An augmentation that moves images a little."""

import torch
import vgx
from pydantic import PositiveInt
from torch import Generator, Tensor


class Shift(vgx.Augmentation, type="shift"):
    """Move each image by a few pixels in each direction; the edge is repeated."""

    pixels: PositiveInt = 2
    """Largest move, in pixels."""

    def build(self, image: vgx.ImageSpec):
        line = torch.arange(image.size)  # [S]

        def move(images: Tensor, generator: Generator) -> Tensor:
            device, bound = images.device, self.pixels
            size = (2, len(images), 1)
            by = torch.randint(-bound, bound + 1, size, generator=generator, device=device)
            rows, columns = (line.to(device) + by).clamp(0, image.size - 1)  # [B, S] each
            moved = images.gather(2, rows[:, None, :, None].expand_as(images))
            return moved.gather(3, columns[:, None, None, :].expand_as(images))

        return move


@vgx.hookimpl
def register_components(register):
    register(Shift)
