"""Losses on the latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Kl(vgx.Loss, type="kl"):
    """Kullback-Leibler divergence of a Gaussian posterior from N(0, I).

    -1/2 sum(1 + logvar - mu^2 - exp(logvar)), summed over the latents, mean over the batch (Kingma
    and Welling 2014, appendix B). In unit `pixel` it is divided by the number of pixel values: the
    right scale beside reconstruction terms that are means over pixels.
    """

    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each picture."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the posterior is the prior."""
        posterior: Any = step.posterior
        mu, logvar = posterior.mu, posterior.logvar  # [B, *Z]
        each: Tensor = -0.5 * (1 + logvar - mu**2 - logvar.exp()).flatten(1).sum(1)  # [B]
        return each.mean() / (step.real[0].numel() if self.unit == "pixel" else 1)

    def note(self, image: vgx.ImageSpec) -> str:
        """Say the weight in the unit that papers use: reconstruction summed over pixels."""
        factor = 1 if self.unit == "pixel" else image.pixel_values
        weight = self.weight
        if isinstance(weight, vgx.Schedule):
            beta = f"goes from {weight.start * factor:g} to {weight.to * factor:g}"
        elif isinstance(weight, vgx.Adaptive):
            beta = "follows the gradients"
        else:
            beta = f"is {weight * factor:g}"
        return (
            f"The KL's effective beta {beta} (beta-VAE, Higgins et al. 2017): its weight beside "
            f"reconstruction terms summed over the {image.pixel_values:,} pixel values."
        )
