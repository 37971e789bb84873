"""The states of metrics: what they keep of each batch, and what they compute at the end.

Letters: B images in a batch, N and M images in all, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Mean:
    """The mean of a number over all pairs of an image and its reconstruction."""

    def __init__(self, name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.measure = name, measure
        self.total, self.count = 0.0, 0

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Add images [B, C, H, W] and their reconstructions."""
        self.total += self.measure(real, fake).double().sum().item()
        self.count += len(real)

    def compute(self) -> dict[str, float]:
        """Return the mean over all images."""
        return {self.name: self.total / self.count}


class GatheredFeatures:
    """The features of all images, which are compared at the end."""

    def __init__(
        self, network: nn.Module, compare: Callable[[Tensor, Tensor], dict[str, float]]
    ) -> None:
        self.network, self.compare = network, compare
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Add real and generated images [B, C, H, W]."""
        self.network.to(real.device)
        self.real.append(self.network(real).cpu())
        self.fake.append(self.network(fake).cpu())

    def compute(self) -> dict[str, float]:
        """Compare features [N, F] with [M, F]."""
        return self.compare(torch.cat(self.real), torch.cat(self.fake))
