"""A loss with a critic: latents that are uniform on [-1, 1]."""

from typing import ClassVar

import torch
import vgx
from torch import nn
from torch.nn import functional as F


class UniformLatents(vgx.Loss, type="uniform-latents"):
    """Make the latents of all images together uniform on [-1, 1] (Makhzani et al. 2016)."""

    critic: ClassVar[bool] = True

    def build(self, image, latent):
        return _Uniform(latent.size)


class _Uniform(nn.Module):
    def __init__(self, size):
        super().__init__()
        layers = nn.Linear(size, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        self.critic = nn.Sequential(*layers)

    def generator(self, step: vgx.Step):
        return F.softplus(-self.critic(step.z.flatten(1))).mean()

    def discriminator(self, step: vgx.Step):
        fake = step.z.detach().flatten(1)  # [B, F]; detached, for the encoder must not help
        real = torch.empty_like(fake).uniform_(-1, 1, generator=step.rng("uniform-latents"))
        return F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(fake)).mean()


@vgx.hookimpl
def register_components(register):
    register(UniformLatents)
