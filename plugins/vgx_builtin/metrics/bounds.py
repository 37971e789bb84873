"""Bounds of the likelihood of images under a trained model.

Letters: B images in a batch, K samples, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import vgx


class Bounds:
    """The evidence lower bound and the importance-weighted one, as bits for each pixel value."""

    def __init__(
        self,
        samples: int,
        values: int,
        log_likelihood: Callable[[str, Tensor, Tensor], Tensor],
        chosen: Callable[[vgx.Recipe], str],
    ) -> None:
        self.samples, self.values = samples, values
        self.log_likelihood, self.chosen = log_likelihood, chosen
        self.generator = torch.Generator().manual_seed(0)  # the same samples in each evaluation
        self.nats, self.count = torch.zeros(2, dtype=torch.float64), 0

    def use(self, model: vgx.Model) -> None:
        """Take the model. Raises `RecipeError` for one without an encoder."""
        if model.encoder is None:
            raise vgx.RecipeError("metric bits-per-dim: the recipe has no encoder")
        self.model, self.kind = model, self.chosen(model.recipe)

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor, labels: Tensor | None = None) -> None:
        """Add images [B, C, H, W] with their labels [B]; nothing is read of `fake`."""
        del fake
        posterior = self.model.posterior(real, labels)
        if not isinstance(posterior, vgx.Gaussian):
            given = type(posterior).__name__
            raise vgx.RecipeError(f"metric bits-per-dim: the posterior is {given}, no Gaussian")
        mu, logvar = posterior.mu.double(), posterior.logvar.double()  # [B, *Z]
        # Image by image, so that the samples do not depend on how the images are cut into batches.
        drawn = [torch.randn(self.samples, *mu.shape[1:], generator=self.generator) for _ in real]
        eps = torch.stack(drawn, 1).to(mu)  # [K, B, *Z]
        weights = []
        for each in eps:
            z = mu + (logvar / 2).exp() * each  # [B, *Z]
            prior = (logvar + each.square() - z.square()).flatten(1).sum(1) / 2  # log p(z) - log q
            logits = self.model.decode_logits(z.float(), labels)  # [B, C, H, W]
            weights.append(self.log_likelihood(self.kind, real, logits) + prior)
        log_w = torch.stack(weights)  # [K, B]
        tight = log_w.logsumexp(0) - math.log(self.samples)  # [B]
        self.nats += torch.stack([log_w.mean(0).sum(), tight.sum()]).cpu()
        self.count += len(real)

    def compute(self) -> dict[str, float]:
        """Return the bits for each pixel value, mean over images."""
        bits = -self.nats / (self.count * self.values * math.log(2))
        return {"bits_per_dim": bits[0].item(), "iwae_bits_per_dim": bits[1].item()}
