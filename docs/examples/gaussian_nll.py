"""A reconstruction loss with a learned parameter: the standard deviation of the noise."""

import torch
import vgx
from torch import nn


class GaussianNll(vgx.Loss, type="gaussian-nll"):
    """Negative log-likelihood of a Gaussian with one learned sigma (Rybkin et al. 2021).

    Mean over pixel values of error^2 / (2 sigma^2) + log sigma, without the constant.
    """

    def build(self, image, latent):
        return _Likelihood()


class _Likelihood(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def generator(self, step: vgx.Step):
        error = (step.recon - step.real) ** 2  # [B, C, H, W]
        return (error * (-2 * self.log_sigma).exp() / 2 + self.log_sigma).mean()


@vgx.hookimpl
def register_components(register):
    register(GaussianNll)
