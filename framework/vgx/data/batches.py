"""Minibatches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, and their labels where there are any."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor | None = None  # [B]

    def __len__(self) -> int:
        return len(self.images)

    def chunk(self, n: int) -> list[Batch]:
        """Cut the minibatch into at most n pieces, as `torch.chunk` does."""
        images = self.images.chunk(n)
        labels = [None] * len(images) if self.labels is None else self.labels.chunk(n)
        return [Batch(*pair) for pair in zip(images, labels, strict=True)]
