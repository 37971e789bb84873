"""Rotate images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor


class Rotation(vgx.Augmentation, type="rotation"):
    """Rotate each image about its centre by an angle drawn uniformly from -degrees..degrees.

    Angle, interpolation and fill are those of torchvision's RandomRotation, with its defaults; here
    each image of a batch has its own angle.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle, counter-clockwise and clockwise."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """How values between pixels are computed."""
    fill: Annotated[float, Field(ge=0, le=1)] | Literal["edge"] = 0.0
    """What fills the corners: a grey value in [0, 1], or `edge`, the nearest pixel."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make the rotation: images [B, C, H, W] -> the same shape."""
        del image
        return self._rotate_randomly

    def _rotate_randomly(self, images: Tensor, generator: Generator) -> Tensor:
        angles = images.new_empty(len(images)).uniform_(-1, 1, generator=generator)  # [B]
        return self.rotate(images, angles * self.degrees)

    def rotate(self, images: Tensor, degrees: Tensor) -> Tensor:
        """Rotate images [B, C, H, W] counter-clockwise by degrees [B]."""
        import torch
        from torch.nn import functional as F

        sine, cosine = (degrees * math.pi / 180).sin(), (degrees * math.pi / 180).cos()  # [B]
        zero = torch.zeros_like(sine)
        ratio = images.shape[2] / images.shape[3]
        # From each new pixel to its place in the old image: the inverse rotation. y points down;
        # both axes go from -1 to 1, whatever their lengths.
        across = torch.stack([cosine, -sine * ratio, zero], -1)
        down = torch.stack([sine / ratio, cosine, zero], -1)
        theta = torch.stack([across, down], 1)  # [B, 2, 3]
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # [B, H, W, 2]
        if self.fill == "edge":
            return F.grid_sample(images, grid, self.interpolation, "border", align_corners=False)
        rotated = F.grid_sample(images, grid, self.interpolation, "zeros", align_corners=False)
        inside = F.grid_sample(
            torch.ones_like(images[:, :1]), grid, self.interpolation, "zeros", align_corners=False
        )  # [B, 1, H, W]
        if self.interpolation == "nearest":
            return rotated.where(inside >= 0.5, self.fill)
        # As in torchvision, where the pixels at the border are weighted twice.
        return rotated * inside + (1 - inside) * self.fill
