"""Modules of losses that have a state, which is saved with the run.

Letters: B images, C channels, H x W pixels, F fakes for each image, h x w a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.losses.sigma_vae import gaussian_nats
from vgx_builtin.pretrained import Standardise, unit_vectors


class LeCamTerm(nn.Module):
    """The term of `lecam`, with its two averages."""

    means: Tensor
    seen: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))  # of the logits of real images, of fakes
        self.register_buffer("seen", torch.zeros(()))  # batches

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when each logit is the average of the other kind."""
        real, fake = step.real_score.logits, step.fake_score.logits
        new = vgx.mean_over_processes(torch.stack([real.mean(), fake.mean()]).detach())  # [2]
        # A plain mean over the first batches: a batch's share falls from 1 to 1 - decay.
        share = (1 / (self.seen + 1)).clamp(min=1 - self.decay)
        self.means.copy_(self.means + share * (new - self.means))
        self.seen.add_(1)
        mean_real, mean_fake = self.means
        value: Tensor = ((real - mean_fake) ** 2).mean() + ((fake - mean_real) ** 2).mean()
        return value


class LearnedVariance(nn.Module):
    """The term of `sigma-vae` with a variance that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign, at least -5.1."""
        return gaussian_nats((step.recon - step.real).square().mean(), self.log_sigma)


class LpipsTerm(nn.Module):
    """The term of `lpips`."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the images have the same features."""
        value: Tensor = self.distance(step.recon, step.real.detach()).mean()
        return value


class FeatureDistance(nn.Module):
    """The term of `perceptual`: the distance of two images in a frozen backbone."""

    def __init__(self, backbone: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.standardise = Standardise(mean, std)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the distance must not change while networks are trained."""
        del mode
        return self

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the images have the same features."""
        real: Any = step.real
        if (channels := real.shape[1]) not in (1, 3):
            message = f"its backbone takes RGB or grey images, and these have {channels} channels"
            raise vgx.RecipeError(f"{message}; leave the loss out, or use image.channels=3")
        layers = zip(self._features(step.recon), self._features(real.detach()), strict=True)
        distances = [(a - b).square().sum(1).mean() for a, b in layers]
        return torch.stack(distances).sum()

    def _features(self, images: Any) -> list[Tensor]:
        """Return feature maps [B, C, h, w]; each place is a vector of length 1."""
        return [unit_vectors(maps) for maps in self.backbone(self.standardise(images))]
