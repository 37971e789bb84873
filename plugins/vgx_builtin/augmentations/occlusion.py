"""Augmentations that hide a part of each image: a shift and a hole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

Share = Annotated[float, Field(ge=0, le=1)]


class Translation(vgx.Augmentation, type="translation"):
    """Shift each image by whole pixels, drawn uniformly along each axis (Zhao et al. 2020).

    The largest shift is `ratio` of the image's height or width, rounded, in either direction.
    """

    ratio: Share = 0.125
    """The largest shift as a share of the image's height or width."""
    fill: Share = 0.0
    """The grey value that fills the edges."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make the shift: images [B, C, H, W] -> the same shape."""
        del image
        return self._shift

    def _shift(self, images: Tensor, generator: Generator) -> Tensor:
        import torch

        for axis in (2, 3):
            size = images.shape[axis]
            most = _rounded(size * self.ratio)
            shifts = torch.randint(
                -most, most + 1, (len(images), 1), generator=generator, device=images.device
            )  # [B, 1]
            # The old line that each new line shows.
            old = torch.arange(size, device=images.device) - shifts  # [B, size]
            shape = (-1, 1, size, 1) if axis == 2 else (-1, 1, 1, size)
            lines = old.clamp(0, size - 1).reshape(shape).expand_as(images)
            inside = ((old >= 0) & (old < size)).reshape(shape)
            images = images.gather(axis, lines).where(inside, self.fill)
        return images


class Cutout(vgx.Augmentation, type="cutout"):
    """Cover a part of each image, a square of a square one (DeVries and Taylor 2017).

    Its centre is drawn uniformly over the image, so it may reach beyond the edge. Its sides are in
    the proportions of the image (as in Zhao et al. 2020).
    """

    ratio: Share = 0.5
    """Its height and width as shares of those of the image."""
    fill: Share = 0.0
    """The grey value of what is covered."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make the hole: images [B, C, H, W] -> the same shape."""
        del image
        return self._cover

    def _cover(self, images: Tensor, generator: Generator) -> Tensor:
        import torch

        inside = []
        for size in images.shape[2:]:
            side = _rounded(size * self.ratio)
            # An even side has its centre between two pixels, one more place than there are pixels.
            centres = torch.randint(
                size + 1 - side % 2, (len(images), 1), generator=generator, device=images.device
            )  # [B, 1]
            place = torch.arange(size, device=images.device) - centres + side // 2  # [B, size]
            inside.append((place >= 0) & (place < side))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # [B, 1, H, W]
        return images.masked_fill(hole, self.fill)


def _rounded(pixels: float) -> int:
    return int(pixels + 0.5)
