"""The term of `vamp-prior`, with its learned images.

Letters: B images, K pseudo-inputs, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.losses.latent import gaussian, log_normal

NOISE = 0.1  # deviation of the first pseudo-inputs from grey


class VampPriorTerm(nn.Module):
    """The pseudo-inputs, and the divergence from the mixture of their posteriors."""

    def __init__(
        self, components: int, image: vgx.ImageSpec, unit: Literal["pixel", "sample"]
    ) -> None:
        super().__init__()
        self.classes, self.unit = image.classes, unit
        self.pixels = nn.Parameter(0.5 + NOISE * torch.randn(components, *image.shape))

    @property
    def images(self) -> Tensor:
        """[K, C, H, W]  The pseudo-inputs u_k in [0, 1]."""
        return self.pixels.clamp(0, 1)

    def mixture(self, encode: Callable[[Tensor, Tensor], vgx.Posterior]) -> vgx.Gaussian:
        """Return the posteriors q(z | u_k) over [K, *Z], by a function of images and labels."""
        images = self.images
        labels = torch.arange(len(images), device=images.device) % max(self.classes, 1)  # [K]
        with vgx.replicated():  # each process has all of them
            return gaussian("vamp-prior", encode(images, labels))

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign; its mean over posterior samples is >= 0."""
        own = gaussian("vamp-prior", step.posterior)
        others = self.mixture(step.encode)
        posterior = log_normal(step.z, own.mu, own.logvar)  # [B]
        each = log_normal(step.z[:, None], others.mu, others.logvar)  # [B, K]
        prior = each.logsumexp(1) - math.log(each.shape[1])  # [B]
        nats: Tensor = (posterior - prior).mean()
        return nats / (step.real[0].numel() if self.unit == "pixel" else 1)
