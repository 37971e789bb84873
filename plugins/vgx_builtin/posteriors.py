"""Posteriors that are no distribution: a point, and a point moved to a codebook's nearest vector.

Letters: B pictures, Z the latent shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, eq=False)
class Point:
    """All belief in one point: what a plain autoencoder has for a posterior."""

    mean: Tensor  # [B, *Z]

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  The point; nothing is drawn."""
        del generator
        return self.mean


@dataclass(frozen=True, eq=False)
class Quantised:
    """What the encoder gave, and the codebook's nearest vectors (van den Oord et al. 2017)."""

    encoded: Tensor  # [B, *Z]  before it was quantised; its gradient goes to the encoder
    codes: Tensor  # [B, *Z]  the nearest vectors; their gradient goes to the codebook
    indices: Tensor  # [B, *places]  which vectors; the places are Z without its channels

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The same as `codes`."""
        return self.codes

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  The codes, with their gradient straight through to `encoded` (section 3.2)."""
        del generator
        return self.encoded + (self.codes - self.encoded).detach()
