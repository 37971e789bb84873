"""What one training step computed: the vocabulary that engine, losses and metrics share.

Letters: B pictures, C channels, H x W pixels, Z the latent shape, h x w the patch grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Posterior(Protocol):
    """What an encoder believes about the latents of each picture."""

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The expected latents."""
        ...

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  One draw for each picture, differentiable where the family allows it."""
        ...


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian with diagonal covariance (Kingma and Welling 2014).

    `logvar` is clamped to [-30, 20] as in latent diffusion: its exponential stays finite.
    """

    mu: Tensor  # [B, *Z]
    logvar: Tensor  # [B, *Z]

    def __post_init__(self) -> None:
        """Clamp once, so that sampling and every loss see the same variance."""
        object.__setattr__(self, "logvar", self.logvar.clamp(-30.0, 20.0))

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The same as `mu`."""
        return self.mu

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  mu + exp(logvar / 2) * eps, the reparametrised draw."""
        eps = self.mu.new_empty(self.mu.shape).normal_(generator=generator)  # [B, *Z]
        return self.mu + (self.logvar / 2).exp() * eps


@dataclass(frozen=True, eq=False)
class Score:
    """A discriminator's verdict; high logits mean real."""

    logits: Tensor  # [B, 1, h, w] or [B, 1]
    features: tuple[Tensor, ...] = ()  # inner activations, shallow first


def _keyed_by_stream(stream: str) -> Generator:
    from vgx import rng

    return rng.generator(0, stream)


@dataclass(frozen=True, eq=False)
class Step:
    """Everything a loss may read. What the recipe's networks do not give is `None`.

    A loss that draws asks `chance` with a word for what it draws: the same word gives the same
    draws in a step, and others in every other, also after a resume.
    """

    number: int  # steps done before this one
    progress: float  # 0 at the start of the training, 1 at its end
    real: Tensor  # [B, C, H, W]  dataset images in [0, 1], augmented
    posterior: Posterior | None  # .mu, .logvar [B, *Z] for a Gaussian
    z: Tensor  # [B, *Z]  the latents that were decoded
    recon: Tensor | None  # [B, C, H, W]  decoded posterior sample, in [0, 1]
    recon_logits: Tensor | None  # [B, C, H, W]  the same before the sigmoid
    prior: Tensor | None  # [B, C, H, W]  decoded N(0, I), when the recipe's `fakes` names it
    real_score: Score | None  # the discriminator on `real`
    fake_score: Score | None  # the discriminator on the fakes that the recipe names, in that order
    discriminator: Callable[[Tensor], Score] | None  # for penalties that need a pass of their own
    fakes: tuple[str, ...] = ("recon",)  # what `fake_score` judged, in this order: recon, prior
    labels: Tensor | None = None  # [B]  those of `real`, when `image.classes` says that it has some
    chance: Callable[[str], Generator] = _keyed_by_stream  # fresh, on the device; see `keys`
