"""Posteriors that are points: an encoder's mean, and a vector of a codebook.

Letters: B images, Z the latent shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, eq=False)
class Point:
    """A posterior that is one point, as in a plain autoencoder."""

    mean: Tensor  # [B, *Z]

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  The point itself; nothing is drawn."""
        del generator
        return self.mean


@dataclass(frozen=True, eq=False)
class Quantised:
    """An encoder's output and the vectors that replace it (van den Oord et al. 2017)."""

    encoded: Tensor  # [B, *Z]  before quantisation; its gradient goes to the encoder
    codes: Tensor  # [B, *Z]  the vectors; the gradient of learned ones goes to the codebook
    indices: Tensor  # [B, *places] or [B, *places, levels]; the places are Z without its channels
    # What moves the vectors: a loss, a moving average, or nothing.
    book: Literal["learned", "averaged", "grid", "corners"] = "learned"
    sums: Tensor | None = None  # [levels, B, *Z]  of the vectors of the first 1, 2, ... levels

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The same as `codes`."""
        return self.codes

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  The codes, with their gradient straight through to `encoded` (section 3.2)."""
        del generator
        return self.encoded + (self.codes - self.encoded).detach()


@dataclass(frozen=True, eq=False)
class NoisyGaussian(vgx.Gaussian):
    """A Gaussian whose samples have noise of a standard deviation `sigma` in addition."""

    sigma: float

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  A sample of the Gaussian, and N(0, sigma^2)."""
        return with_noise(vgx.Gaussian.sample(self, generator), self.sigma, generator)


@dataclass(frozen=True, eq=False)
class NoisyPoint(Point):
    """A point whose samples have noise of a standard deviation `sigma`."""

    sigma: float

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  The point, and N(0, sigma^2)."""
        return with_noise(self.mean, self.sigma, generator)


def with_noise(z: Tensor, sigma: float, generator: Generator) -> Tensor:
    """[B, *Z]  Latents, and N(0, sigma^2)."""
    return z + sigma * z.new_empty(z.shape).normal_(generator=generator)
