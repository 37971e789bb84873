"""A prior: the Gaussian that is learned by likelihood, with one deviation for all numbers."""

import torch
import vgx
from torch import nn


class BroadGaussian(vgx.Prior, type="broad-gaussian"):
    """N(m, s^2 I) with a learned m and s."""

    def build(self, latent: vgx.LatentSpec, codes: vgx.CodeSpec):
        return _Gaussian(codes.shape)


class _Gaussian(nn.Module):
    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def loss(self, codes, generator):
        """Return -log p of latents [B, *Z] for each number, without the constant."""
        return (((codes - self.mean) / self.log_sigma.exp()) ** 2 / 2 + self.log_sigma).mean()

    @torch.no_grad()
    def draw(self, n, generator, *, temperature: float = 1.0):
        """[n, *Z]  New latents; a sampler may set the temperature."""
        noise = torch.randn((n, *self.mean.shape), generator=generator, device=generator.device)
        return self.mean + temperature * self.log_sigma.exp() * noise.to(self.mean)


@vgx.hookimpl
def register_components(register):
    register(BroadGaussian)
