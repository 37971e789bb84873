"""The covariance of the latents, matched to that of the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class DipVae(vgx.Loss, type="dip-vae"):
    """Match the covariance of the latents to the identity: DIP-VAE (Kumar et al. 2018).

    The loss is sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2 with the covariance C of a
    minibatch. DIP-VAE-I (equation 6) has that of the posterior means, cov(mu); DIP-VAE-II (equation
    7) has that of the latents, cov(mu) + E[sigma^2]. Its `weight` is lambda_od in the paper. It
    belongs beside a `kl` of weight 1. As in the authors' formula, a covariance is a mean over the
    images, with no correction for their number.
    """

    variant: Literal[1, 2] = 2
    """1: the covariance of the posterior means; 2: that of the latents."""
    diagonal: NonNegativeFloat | None = None
    """The weight of the diagonal, over that of the rest: lambda_d / lambda_od. `null` is the
    paper's, 10 for variant 1 and 1 for variant 2."""
    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: divided by the number of pixel values; `sample`: not divided; as in `kl`."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the covariance is the identity."""
        from vgx_builtin.losses.latent import gaussian

        posterior = gaussian(self.type, step.posterior)
        mu, logvar = posterior.mu.flatten(1), posterior.logvar.flatten(1)  # [B, Z]
        centred = mu - vgx.mean_over_processes(mu.mean(0))
        covariance = vgx.mean_over_processes(centred.T @ centred / len(mu))  # [Z, Z]
        variances = covariance.diagonal()  # [Z]
        between = covariance.square().sum() - variances.square().sum()
        if self.variant == 2:  # the noise of the latents is independent: it adds to the diagonal
            variances = variances + vgx.mean_over_processes(logvar.exp().mean(0))
        factor = self.diagonal
        if factor is None:
            factor = 10.0 if self.variant == 1 else 1.0
        value = between + factor * (variances - 1).square().sum()
        return value / (step.real[0].numel() if self.unit == "pixel" else 1)
