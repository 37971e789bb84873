"""A prior that is learned with the autoencoder, as a loss with weights of its own."""

import math

import torch
import vgx
from pydantic import PositiveInt
from torch import Tensor, nn


class MixturePrior(vgx.Loss, type="mixture-prior"):
    """The divergence of the posterior from a learned mixture of Gaussians (Jiang et al. 2017).

    log q(z | x) - log sum_k pi_k N(z; m_k, s_k^2) at the posterior sample z, mean over the batch,
    divided by the number of pixel values as in `kl`. pi, m and s are learned.
    """

    components: PositiveInt = 10
    """The number of Gaussians."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec):
        return _Mixture(self.components, latent)


class _Mixture(nn.Module):
    def __init__(self, components: int, latent: vgx.LatentSpec):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))  # of pi
        self.means = nn.Parameter(torch.randn(components, latent.size))
        self.logvars = nn.Parameter(torch.zeros(components, latent.size))

    def generator(self, step: vgx.Step) -> Tensor:
        z, own = step.z.flatten(1), step.posterior  # [B, D], over [B, *Z]
        posterior = log_density(z, own.mu.flatten(1), own.logvar.flatten(1))  # [B]
        each = log_density(z[:, None], self.means, self.logvars)  # [B, K]
        prior = (self.logits.log_softmax(0) + each).logsumexp(1)  # [B]
        return (posterior - prior).mean() / step.real[0].numel()


def log_density(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Return the log density of a Gaussian with independent numbers, summed over the last ones."""
    each = math.log(2 * math.pi) + logvar + (z - mu) ** 2 * (-logvar).exp()
    return -each.sum(-1) / 2


@vgx.hookimpl
def register_components(register):
    register(MixturePrior)
