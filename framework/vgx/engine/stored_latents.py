"""The newest latents of a training, which samplers draw from.

Letters: B images, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LATENTS = 10_000  # latents that a run stores: those of the last epoch, or of its last part


class StoredLatents:
    """A ring of the newest latents."""

    def __init__(self, size: int, shape: tuple[int, ...], device: torch.device) -> None:
        """Make room for at most `MAX_LATENTS` latents of one shape."""
        self.ring = torch.zeros(min(size, MAX_LATENTS), *shape, device=device)  # [K, *Z]
        self.written = 0  # latents so far

    def add(self, z: Tensor) -> None:
        """Write latents [B, *Z] over the oldest ones."""
        z = z.detach()[-len(self.ring) :].to(self.ring.dtype)
        places = (self.written + torch.arange(len(z), device=self.ring.device)) % len(self.ring)
        self.ring[places] = z
        self.written += len(z)

    def newest(self) -> Tensor:
        """[K, *Z]  The latents that are stored, oldest first."""
        if self.written <= len(self.ring):
            return self.ring[: self.written]
        return self.ring.roll(-(self.written % len(self.ring)), 0)

    def load(self, latents: Tensor) -> None:
        """Take up latents [K, *Z] of a checkpoint."""
        self.ring[: len(latents)] = latents.to(self.ring)
        self.written = len(latents)
