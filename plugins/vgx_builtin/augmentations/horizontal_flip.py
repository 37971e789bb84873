"""Mirror images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor


class HorizontalFlip(vgx.Augmentation, type="horizontal-flip"):
    """Mirror each image left to right with probability `p`."""

    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability for each image."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make the flip: images [B, C, H, W] -> the same shape."""
        del image
        return self._flip

    def _flip(self, images: Tensor, generator: Generator) -> Tensor:
        draws = images.new_empty(len(images), 1, 1, 1).uniform_(generator=generator)
        return images.flip(-1).where(draws < self.p, images)
