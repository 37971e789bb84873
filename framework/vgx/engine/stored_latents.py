"""The newest latents of a training, which samplers draw from, with their labels.

Letters: B images, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vgx.distributed.rows import gather, mean_over_processes
from vgx.parts.kinds import Indexed
from vgx.step import Gaussian, KnowsKl, Step

MAX_LATENTS = 10_000  # latents that a run stores: those of the last epoch, or of its last part
UNKNOWN = -1  # the label of a latent from a checkpoint without labels


class StoredLatents:
    """A ring of the newest latents, and what is known about them.

    `labels` are those of the images, in a run with labels. `kl` is the mean KL of the posteriors
    from N(0, I) by dimension: over the first K images the plain mean, then an exponential one.
    """

    def __init__(
        self, size: int, shape: tuple[int, ...], device: torch.device, *, labelled: bool = False
    ) -> None:
        """Make room for at most `MAX_LATENTS` latents of one shape."""
        self.ring = torch.zeros(min(size, MAX_LATENTS), *shape, device=device)  # [K, *Z]
        self.labels = (
            torch.full((len(self.ring),), UNKNOWN, device=device) if labelled else None
        )  # [K]
        self.kl: Tensor | None = None  # [*Z]  nats; of posteriors that know it
        # Of the last step, to be read when it is logged, and not saved; only a codebook has them.
        self.indices: Tensor | None = None
        self.written = 0  # latents so far

    @torch.no_grad()
    def add(self, step: Step) -> None:
        """Write the latents [B, *Z] of a step, of all processes, over the oldest ones."""
        z = gather(step.z)[-len(self.ring) :].to(self.ring.dtype)
        places = (self.written + torch.arange(len(z), device=self.ring.device)) % len(self.ring)
        self.ring[places] = z
        if self.labels is not None and step.labels is not None:
            self.labels[places] = gather(step.labels)[-len(self.ring) :]
        self.written += len(z)
        if step.has("posterior") and isinstance(step.posterior, Indexed):
            self.indices = gather(step.posterior.indices)
        if step.has("posterior") and isinstance(posterior := step.posterior, KnowsKl):
            if isinstance(posterior, Gaussian):
                mu, logvar = (t.to(self.ring.dtype) for t in (posterior.mu, posterior.logvar))
                posterior = Gaussian(mu, logvar)
            kl = mean_over_processes(posterior.kl().to(self.ring.dtype).mean(0))  # [*Z]
            share = len(z) / min(self.written, len(self.ring))
            self.kl = kl if self.kl is None else self.kl + share * (kl - self.kl)

    def state(self) -> dict[str, Tensor]:
        """Return all of it by name: latents and labels oldest first."""
        state = {"codes": self._in_order(self.ring)}
        if self.labels is not None:
            state["labels"] = self._in_order(self.labels)
        return state if self.kl is None else state | {"kl": self.kl}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the latents of a checkpoint; those of an earlier vgx have no labels and no KL."""
        codes = state["codes"]  # [K, *Z]
        self.ring[: len(codes)] = codes.to(self.ring)
        if self.labels is not None:
            self.labels[: len(codes)] = state.get("labels", torch.tensor(UNKNOWN)).to(self.labels)
        self.kl = state["kl"].to(self.ring) if "kl" in state else None
        self.written = len(codes)

    def _in_order(self, ring: Tensor) -> Tensor:
        if self.written <= len(ring):
            return ring[: self.written]
        return ring.roll(-(self.written % len(ring)), 0)
