"""Bilinear sampling of images whose gradient has a gradient, which penalties on slopes need.

`grid_sample` has none in PyTorch 2.10 and 2.11. Letters: B images, C channels, H x W pixels, h x w
places of the grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BILINEAR, REFLECTION = 0, 2  # as the operation below numbers its modes


def sampled(images: Tensor, grid: Tensor) -> Tensor:
    """[B, C, h, w]  Images [B, C, H, W] at the places of a grid [B, h, w, 2], reflected outside.

    The same as `grid_sample`, and its gradient by the images. The grid gets no gradient.
    """
    # Autocast makes a grid in bfloat16, and takes it as float32 in `grid_sample`.
    result: Tensor = _Sampled.apply(images, grid.to(images.dtype))
    return result


class _Sampled(torch.autograd.Function):
    """The images at the places of the grid: linear in the images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        """Return [B, C, h, w]."""
        ctx.save_for_backward(images, grid)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient by the images, [B, C, H, W]."""
        return _Spread.apply(gradient, *ctx.saved_tensors), None


class _Spread(torch.autograd.Function):
    """The transpose of the same linear map, from [B, C, h, w] to [B, C, H, W]."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, images: Tensor, grid: Tensor) -> Tensor:
        """Return [B, C, H, W]; of the images the shape alone counts."""
        ctx.save_for_backward(grid)
        settings = BILINEAR, REFLECTION, False, [True, False]
        operation = torch.ops.aten.grid_sampler_2d_backward
        spread: Tensor = operation(gradient, images, grid, *settings)[0]
        return spread

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient by the gradient, [B, C, h, w]."""
        return _Sampled.apply(second, *ctx.saved_tensors), None, None
