"""A prior that is learned with the autoencoder, as a loss with weights of its own."""

import math

import torch
import vgx
from pydantic import PositiveInt
from torch import Tensor, nn


class VampPrior(vgx.Loss, type="vamp-prior"):
    """The divergence of the posterior from a mixture of posteriors (Tomczak and Welling 2018).

    log q(z | x) - log 1/K sum_k q(z | u_k) at the posterior sample z, mean over the batch, divided
    by the number of pixel values as in `kl`. The K images u_k are learned (eq. 9).
    """

    components: PositiveInt = 50
    """K, the number of learned images."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec):
        return _Mixture(self.components, image)


class _Mixture(nn.Module):
    def __init__(self, components: int, image: vgx.ImageSpec):
        super().__init__()
        shape = (components, image.channels, image.height, image.width)
        self.logits = nn.Parameter(torch.randn(shape) / 10)  # of the learned images

    def generator(self, step: vgx.Step) -> Tensor:
        own, others = step.posterior, step.encode(self.logits.sigmoid())  # over [B, *Z], [K, *Z]
        latents = step.z.dim() - 1  # 1 for flat latents, 3 for spatial ones
        posterior = log_density(step.z, own.mu, own.logvar, latents)  # [B]
        each = log_density(step.z[:, None], others.mu, others.logvar, latents)  # [B, K]
        prior = each.logsumexp(1) - math.log(len(self.logits))  # [B]
        return (posterior - prior).mean() / step.real[0].numel()


def log_density(z: Tensor, mu: Tensor, logvar: Tensor, latents: int) -> Tensor:
    """Return the log density of a Gaussian, summed over its last dimensions, the latents."""
    each = -(math.log(2 * math.pi) + logvar + (z - mu) ** 2 * (-logvar).exp()) / 2
    return each.flatten(-latents).sum(-1)


@vgx.hookimpl
def register_components(register):
    register(VampPrior)
