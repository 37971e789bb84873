"""What metrics gather pictures with.

Letters: B pictures in a batch, N and M in all, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Mean:
    """The mean of a number that each pair of pictures has."""

    def __init__(self, name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.measure = name, measure
        self.total, self.seen = 0.0, 0

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Take in pictures [B, C, H, W] and their reconstructions."""
        self.total += self.measure(real, fake).double().sum().item()
        self.seen += len(real)

    def compute(self) -> dict[str, float]:
        """Return the mean over all pictures."""
        return {self.name: self.total / self.seen}


class Gathered:
    """The features of all pictures, compared at the end."""

    def __init__(
        self, network: nn.Module, compare: Callable[[Tensor, Tensor], dict[str, float]]
    ) -> None:
        self.network, self.compare = network, compare
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Take in pictures [B, C, H, W] of each side."""
        self.network.to(real.device)
        self.real.append(self.network(real).cpu())
        self.fake.append(self.network(fake).cpu())

    def compute(self) -> dict[str, float]:
        """Compare features [N, F] with [M, F]."""
        return self.compare(torch.cat(self.real), torch.cat(self.fake))


class AsGiven(nn.Module):
    """In the place of a network where features are at hand."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features  # the name that torchmetrics asks for

    def forward(self, features: Tensor) -> Tensor:
        """Return features [N, F]."""
        return features
