"""Stored latents of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class PosteriorCodes(vgx.Sampler, type="posterior"):
    """Draw from the latents of the last epoch: posterior samples of real images.

    Decoded with the labels of their images, they are reconstructions, which show the decoder where
    it was trained.
    """

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        del latent
        return _Stored()


class _Stored:
    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  With replacement, from codes [K, *Z]."""
        import torch

        rows = [torch.randint(len(codes), (), generator=generator) for _ in range(n)]
        return codes[torch.stack(rows)]
