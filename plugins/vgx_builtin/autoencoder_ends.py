"""What is before and after the blocks of diffusers' autoencoders: latents that fit, and images.

Letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

import vgx
from vgx_builtin.modules import at_least_float32, pixels, smallest_sides

EDGE = 1e-6  # distance of the images from 0 and 1, where their logits are infinite


def require_latent(part: str, halvings: int, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> None:
    """Raise `RecipeError` for a latent that has not the sides of images halved so often."""
    height, width = smallest_sides(part, image, halvings)
    if latent.shape[1:] != (height, width):
        raise vgx.RecipeError(
            f"latent: {part} halves {pixels(image)} {halvings} times to {height}x{width}, "
            f"and the shape {list(latent.shape)} is not of that; "
            f"try latent=[{latent.shape[0] if len(latent.shape) > 1 else 4},{height},{width}]"
        )


def image_logits(images: Tensor) -> Tensor:
    """Images [B, C, H, W] of a last layer without activation -> logits, at least in float32.

    Their sigmoid is the images, cut off at 0 and 1. The gradient passes through both as if neither
    were there, so that no pixel stops learning. Near 1 the slopes of logit and sigmoid would not
    cancel in float32, so the slope of the sigmoid is taken where the logit is rounded.
    """
    images = at_least_float32(images)
    inside = images.clamp(EDGE, 1 - EDGE)
    logits = inside.logit()
    with torch.no_grad():
        rounded = logits.sigmoid()
        own = (images == inside) / (inside * (1 - inside))  # the slope of the logits so far
        lost = 1 / (rounded * (1 - rounded)) - own
    return logits + (images - images.detach()) * lost  # adds 0, and its gradient is not
