"""Modules that more than one built-in part is made of.

Letters: B pictures, C channels, H x W pixels, Z the latent shape, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import vgx
from vgx.errors import RecipeError

SLOPE = 0.2  # of LeakyReLU, as in DCGAN (Radford et al. 2016)


class GaussianEncoder(nn.Module):
    """A trunk that gives features, and two linear layers that read mu and logvar off them."""

    def __init__(self, trunk: nn.Module, features: int, latent: vgx.LatentSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.mu = nn.Linear(features, latent.shape[0])
        self.logvar = nn.Linear(features, latent.shape[0])

    def forward(self, images: Tensor) -> vgx.Gaussian:
        """Images [B, C, H, W] -> a Gaussian over [B, Z], in float32 at least."""
        features = self.trunk(images).flatten(1)  # [B, F]
        mu, logvar = self.mu(features), self.logvar(features)  # [B, Z]
        wide = torch.promote_types(mu.dtype, torch.float32)
        return vgx.Gaussian(mu.to(wide), logvar.to(wide))


class PatchDiscriminator(nn.Module):
    """Stages whose outputs are the features, and a head that scores each patch of the last."""

    def __init__(self, stages: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, h, w] and every stage's output."""
        features = []
        x = images * 2 - 1  # centred, as the weights' initialisation expects
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return vgx.Score(self.head(x), tuple(features))


class TimmPatchDiscriminator(nn.Module):
    """A timm backbone's feature maps, and a 1x1 convolution that scores each place of the last."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.feature_info.channels()[-1], 1, 1)
        # What the backbone's own pretraining subtracted and divided by; no state of a run. Born in
        # float64, so that a network cast to it computes with the numbers as they are written.
        for name, values in (("mean", mean), ("std", std)):
            statistic = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)  # [1, C, 1, 1]
            self.register_buffer(name, statistic, persistent=False)

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, h, w] and every stage's feature map."""
        mean, std = self.mean.to(images.dtype), self.std.to(images.dtype)
        features = self.backbone((images - mean) / std)
        return vgx.Score(self.head(features[-1]), tuple(features))


def flat_size(part: str, latent: vgx.LatentSpec) -> int:
    """Return the size of a flat latent. Raises `RecipeError` for a spatial one."""
    if len(latent.shape) != 1:
        raise RecipeError(f"latent: {part} wants one number, not the shape {list(latent.shape)}")
    return latent.shape[0]


def smallest_side(part: str, image: vgx.ImageSpec, halvings: int) -> int:
    """Return the side after halving. Raises `RecipeError` when it does not halve."""
    step: int = 2**halvings
    side, rest = divmod(image.size, step)
    if rest:
        fitting = image.size // step * step or step
        raise RecipeError(
            f"{part}: {image.size} pixels can't be halved {halvings} times; "
            f"try image.size={fitting}, or fewer widths"
        )
    return side
