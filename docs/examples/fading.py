"""A decoder that changes with the step: noise in its latents that fades out."""

import torch
import vgx
from pydantic import PositiveFloat
from torch import Tensor, nn


class Fading(vgx.Decoder, type="fading"):
    """Another decoder whose latents get less and less noise, none from `until` on."""

    inner: vgx.Decoder
    """The decoder."""
    until: PositiveFloat = 0.5
    """The progress of the training at which the noise has faded out."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec):
        return _Fading(self.inner.build(latent, image), self.until)


class _Fading(nn.Module):
    def __init__(self, inner: nn.Module, until: float):
        super().__init__()
        self.inner, self.until = inner, until
        self.register_buffer("strength", torch.ones(()))

    def at(self, number: int, progress: float):
        del number
        self.strength.fill_(max(0.0, 1 - progress / self.until))

    def forward(self, z: Tensor):
        noise = torch.randn_like(z) if self.training else torch.zeros_like(z)
        return self.inner(z + self.strength * noise)


@vgx.hookimpl
def register_components(register):
    register(Fading)
