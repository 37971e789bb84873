"""An encoder whose means are replaced by vectors of a codebook.

Letters: B images, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from vgx_builtin.posteriors import Quantised


class Quantiser(Protocol):
    """What replaces means by vectors."""

    codes: int

    def __call__(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> means as they are quantised, vectors and indices."""
        ...

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The vectors with these indices [n, *places] or [n, *places, levels]."""
        ...


class QuantisedEncoder(nn.Module):
    """An encoder whose means are quantised: a `vgx.Quantising` module."""

    def __init__(self, inner: nn.Module, codebook: nn.Module) -> None:
        super().__init__()
        self.inner, self.codebook = inner, codebook
        self.codes = cast("Quantiser", codebook).codes

    def forward(self, images: Tensor) -> Quantised:
        """Images [B, C, H, W] -> a posterior over [B, *Z]."""
        quantised: Quantised = self.codebook(self.inner(images).mean)
        return quantised

    def from_indices(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The latents of indices [n, *places] or [n, *places, levels]."""
        return cast("Quantiser", self.codebook).vectors(indices)
