"""Bounds of the likelihood of images under a trained model.

Letters: B images in a batch, K samples, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import vgx
from vgx_builtin.losses.latent import log_normal
from vgx_builtin.losses.vamp_prior_term import VampPriorTerm


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
        terms = [each for each in model.losses.values() if isinstance(each, VampPriorTerm)]
        self.mixture: tuple[Tensor, Tensor] | None = None  # [K, *Z] each, of a learned prior
        if not terms and any(loss.type == "vamp-prior" for loss in model.recipe.losses):
            text = "the model was exported without the prior that it has learned; give the run"
            raise vgx.RecipeError(f"metric bits-per-dim: {text}")
        if terms:
            with torch.no_grad():
                others = terms[0].mixture(model.posterior)
            self.mixture = others.mu.double(), others.logvar.double()

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
            prior = self._log_prior(z) - log_normal(z, mu, logvar)  # [B]
            logits = self.model.decode_logits(z.float(), labels)  # [B, C, H, W]
            weights.append(self.log_likelihood(self.kind, real, logits) + prior)
        log_w = torch.stack(weights)  # [K, B]
        tight = log_w.logsumexp(0) - math.log(self.samples)  # [B]
        self.nats += torch.stack([log_w.mean(0).sum(), tight.sum()]).cpu()
        self.count += len(real)

    def _log_prior(self, z: Tensor) -> Tensor:
        """[B]  log p(z) of latents [B, *Z]."""
        if self.mixture is None:
            return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
        each = log_normal(z[:, None], *self.mixture)  # [B, K]
        return each.logsumexp(1) - math.log(each.shape[1])

    def compute(self) -> dict[str, float]:
        """Return the bits for each pixel value, mean over images."""
        bits = -self.nats / (self.count * self.values * math.log(2))
        return {"bits_per_dim": bits[0].item(), "iwae_bits_per_dim": bits[1].item()}
