"""The bound on the likelihood with several samples of the posterior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Iwae(vgx.Loss, type="iwae"):
    """Minus the importance-weighted bound on log p(x) (Burda et al. 2016).

    It takes the place of `bce` and `kl`: -mean log 1/K sum_k w_k with w_k = p(x | z_k) p(z_k) /
    q(z_k | x), K samples z_k of a Gaussian posterior, N(0, I) as the prior, and each pixel value a
    probability, as in `bce`. With K = 1 it is `bce` plus `kl`, both in the same unit.

    `plain` follows the gradient of this value. `dreg` has another estimate of the encoder's
    gradient, sum_k v_k^2 d log w_k / d z_k d z_k / d phi with v_k = w_k / sum w, whose signal does
    not vanish as K grows (Tucker et al. 2019); the decoder's is the same.
    """

    samples: Annotated[int, Field(ge=1, le=1000)] = 5
    """K, the samples for each image; each is decoded."""
    gradient: Literal["plain", "dreg"] = "dreg"
    """The estimate of the encoder's gradient; the value is the same."""
    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each image; as in `kl`."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar; its mean over the samples is >= 0."""
        import torch
        from torch.nn import functional as F

        from vgx_builtin.losses.latent import gaussian, log_normal

        posterior = gaussian(self.type, step.posterior)
        mu, logvar = posterior.mu, posterior.logvar  # [B, *Z]
        generator = step.rng(self.type)
        noise = [torch.empty_like(mu).normal_(generator=generator) for _ in range(self.samples)]
        z = mu + (logvar / 2).exp() * torch.stack(noise)  # [K, B, *Z]
        if self.gradient == "dreg":  # z alone carries the gradient
            mu, logvar = mu.detach(), logvar.detach()
        logits = step.decode_logits(z.flatten(0, 1))  # [K*B, C, H, W]
        real = step.real.repeat(self.samples, 1, 1, 1)
        nats = F.binary_cross_entropy_with_logits(logits, real, reduction="none")
        weights = log_normal(z, mu * 0, logvar * 0) - log_normal(z, mu, logvar)
        weights = weights - nats.flatten(1).sum(1).view(weights.shape)  # [K, B]  log w
        value = math.log(self.samples) - weights.logsumexp(0).mean()
        if self.gradient == "dreg":
            shares = weights.detach().softmax(0)  # [K, B]
            if z.requires_grad:
                each = shares.view(*shares.shape, *[1] * (z.dim() - 2))
                hooked: Any = z
                hooked.register_hook(lambda gradient: each * gradient)
            surrogate = -(shares * weights).sum(0).mean()
            value = surrogate + (value - surrogate).detach()
        return value / (step.real[0].numel() if self.unit == "pixel" else 1)
