"""The states of metrics: what they keep of each batch, and what they compute at the end.

Letters: B images in a batch, N and M images in all, C channels, H x W pixels, F features.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Mean:
    """The mean of a number over all pairs of an image and its reconstruction."""

    def __init__(self, name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.measure = name, measure
        self.values: list[float] = []  # of each image

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Add images [B, C, H, W] and their reconstructions."""
        self.values += self.measure(real, fake).double().tolist()

    def compute(self) -> dict[str, float]:
        """Return the mean over all images."""
        return {self.name: statistics.fmean(self.values)}

    def per_image(self) -> dict[str, Sequence[float]]:
        """Return the number of each image."""
        return {self.name: self.values}


class GatheredFeatures:
    """The features of all images, which are compared at the end."""

    def __init__(self, network: nn.Module, compare: Callable[..., dict[str, float]]) -> None:
        self.network, self.compare = network, compare
        self.features: list[list[Tensor]] = []  # of each batch: of each set of images

    @torch.no_grad()
    def update(self, *sets: Tensor) -> None:
        """Add images [B, C, H, W] of each set: real, generated and, for some metrics, held out."""
        self.network.to(sets[0].device)
        self.features.append([self.network(images).cpu() for images in sets])

    def compute(self) -> dict[str, float]:
        """Compare the features of the sets, [N, F] and [M, F] and so on."""
        return self.compare(*map(torch.cat, zip(*self.features, strict=True)))
