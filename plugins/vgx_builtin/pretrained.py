"""Images for networks that were trained before, and what is made of their feature maps.

Letters: B images, C channels, H x W pixels, F features, h x w a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Images -> (images - mean) / std, with the statistics of a pretraining's images."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not part of a run's state. In float64, so that a network cast to it computes with the
        # exact numbers.
        for name, values in (("mean", mean), ("std", std)):
            statistic = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)  # [1, C, 1, 1]
            self.register_buffer(name, statistic, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> the same shape; greyscale is broadcast to three channels."""
        mean, std = self.mean.to(images.dtype), self.std.to(images.dtype)
        return (images - mean) / std


def unit_vectors(maps: Tensor) -> Tensor:
    """Feature maps [B, F, h, w] -> the same, the vector of each place divided by its length."""
    # Added inside the root, so that its derivative stays finite where all features are 0.
    return maps / (maps.square().sum(1, keepdim=True) + 1e-8).sqrt()
