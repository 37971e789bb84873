"""What losses with a state of their own are made of; it is saved with the run.

Letters: B pictures, C channels, H x W pixels, F fakes for each picture, h x w a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

import vgx


class LeCamTerm(nn.Module):
    """The term of `lecam`, with the averages that it draws logits to."""

    means: Tensor
    seen: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))  # of the logits of real pictures, of fakes
        self.register_buffer("seen", torch.zeros(()))  # batches

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when each logit is the other side's average."""
        real, fake = step.real_score.logits, step.fake_score.logits
        new = torch.stack([real.mean(), fake.mean()]).detach()  # [2]
        # The mean of all batches until the moving average has as many to look back on.
        share = (1 / (self.seen + 1)).clamp(min=1 - self.decay)
        self.means.copy_(self.means + share * (new - self.means))
        self.seen.add_(1)
        mean_real, mean_fake = self.means
        value: Tensor = ((real - mean_fake) ** 2).mean() + ((fake - mean_real) ** 2).mean()
        return value


class FeatureDistance(nn.Module):
    """The term of `perceptual`: a frozen backbone, and how far two pictures are apart in it."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        for name, values in (("mean", mean), ("std", std)):
            statistic = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)  # [1, 3, 1, 1]
            self.register_buffer(name, statistic, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Stay as it is: statistics and dropout of a yardstick don't follow the training."""
        del mode
        return self

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the pictures have the same features."""
        real: Any = step.real
        layers = zip(self._features(step.recon), self._features(real.detach()), strict=True)
        distances = [(a - b).square().sum(1).mean() for a, b in layers]
        return torch.stack(distances).sum()

    def _features(self, images: Any) -> list[Tensor]:
        """Feature maps [B, C, h, w], each place a vector of length 1."""
        mean, std = self.mean.to(images.dtype), self.std.to(images.dtype)
        maps = self.backbone((images - mean) / std)  # greyscale becomes colour by broadcasting
        # Inside the root, so that its derivative stays finite where nothing answers.
        return [x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt() for x in maps]
