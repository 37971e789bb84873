"""Latents from the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Prior(vgx.Sampler, type="prior"):
    """Draw latents from N(0, I), as every GAN and the plain VAE does."""

    @property
    def least_codes(self) -> int:
        """0: it draws without the run's latents."""
        return 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        return Normal(latent)


class Normal:
    """Draws from N(0, I)."""

    def __init__(self, latent: vgx.LatentSpec) -> None:
        self.latent = latent

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Rows are drawn one after another, so that none depends on `n`."""
        import torch

        rows = [torch.randn(self.latent.shape, generator=generator) for _ in range(n)]
        return torch.stack(rows).to(codes)
