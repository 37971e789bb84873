"""A decoder with a mapping network, which any other decoder can get."""

from typing import ClassVar

import torch
import vgx
from pydantic import PositiveInt
from torch import Tensor, nn


class Mapped(vgx.Decoder, type="mapped"):
    """Another decoder, of w instead of z: a mapping network computes w (Karras et al. 2019)."""

    decay: ClassVar[float] = 0.99  # of the mean of w

    inner: vgx.Decoder
    """The decoder of w."""
    layers: PositiveInt = 2
    """Layers of the mapping network."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec):
        size = latent.size
        pairs = [(nn.Linear(size, size), nn.LeakyReLU(0.2)) for _ in range(self.layers)]
        mapping = nn.Sequential(nn.Flatten(), *(layer for pair in pairs for layer in pair))
        return _Mapped(mapping, self.inner.build(vgx.LatentSpec((size,)), image), size, self.decay)


class _Mapped(nn.Module):
    def __init__(self, mapping: nn.Module, inner: nn.Module, size: int, decay: float):
        super().__init__()
        self.mapping, self.inner, self.decay = mapping, inner, decay
        self.register_buffer("w_mean", torch.zeros(size))

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        w = self.mapping(z)  # [B, W]
        if self.training:
            mean = vgx.mean_over_processes(w.detach().mean(0))  # of all images
            self.w_mean.lerp_(mean.to(self.w_mean), 1 - self.decay)
        return w

    def decode_mapped(self, w: Tensor) -> Tensor:
        return self.inner(w)

    def forward(self, z: Tensor) -> Tensor:
        return self.decode_mapped(self.map(z))


@vgx.hookimpl
def register_components(register):
    register(Mapped)
