"""Latents from the middle of the prior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Truncation(vgx.Sampler, type="truncation"):
    """Draw latents from N(0, I) without its tails: the truncation trick (Brock et al. 2019).

    Each number is normal on the condition that it lies within -threshold..threshold, as if it were
    drawn again until it does. A small threshold trades variety for quality.
    """

    threshold: PositiveFloat = 1.0
    """The largest absolute value in a latent."""

    @property
    def least_codes(self) -> int:
        """0: it draws without the run's latents."""
        return 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        return _Truncated(self.threshold, latent)


class _Truncated:
    def __init__(self, threshold: float, latent: vgx.LatentSpec) -> None:
        self.threshold, self.latent = threshold, latent

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  By the inverse distribution function, so that each number takes one draw."""
        import torch

        rows = [
            torch.rand(self.latent.shape, generator=generator, dtype=torch.float64)
            for _ in range(n)
        ]
        # The normal's mass within +-t is erf(t / sqrt 2); the draws are uniform over it.
        mass = (2 * torch.stack(rows) - 1) * math.erf(self.threshold / math.sqrt(2))
        z = math.sqrt(2) * torch.erfinv(mass)  # [n, *Z]
        return z.clamp(-self.threshold, self.threshold).to(codes)
