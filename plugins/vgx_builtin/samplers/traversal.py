"""One latent dimension at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Traversal(vgx.Sampler, type="traversal"):
    """Move one latent dimension from -span to span while all others stay (Higgins et al. 2017).

    Image i is at step i mod steps of row i div steps, and each row moves another dimension; after
    the last dimension they repeat from the first. Nothing is drawn: the seed changes nothing.
    """

    dimensions: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """The dimensions, counted from 0 in the flattened latent; `null` takes all, those with the
    largest variance over the stored latents first."""
    span: PositiveFloat = 3.0
    """The largest distance from 0 to either side; the prior's standard deviation is 1."""
    steps: Annotated[int, Field(ge=2)] = 10
    """Number of images in a row, including both ends."""
    base: Literal["mean", "code"] = "mean"
    """The values of the other dimensions: the mean of the run's stored latents, or the oldest of
    them."""

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]. Raises `RecipeError` for a missing dimension."""
        last = math.prod(latent.shape) - 1
        for dimension in self.dimensions or ():
            if dimension > last:
                message = f"a latent has the dimensions 0 to {last}"
                raise vgx.RecipeError(f"sampler traversal: dimensions: {dimension}: {message}")
        return _Walk(self)


class _Walk:
    def __init__(self, part: Traversal) -> None:
        self.part = part

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Row after row, around the stored latents `codes` [K, *Z]."""
        import torch

        del generator
        flat = codes.flatten(1).double()  # [K, D]
        base = flat.mean(0) if self.part.base == "mean" else flat[0]  # [D]
        if self.part.dimensions is None:
            order = flat.var(0, correction=0).argsort(descending=True, stable=True)  # [D]
        else:
            order = torch.tensor(self.part.dimensions)
        values = torch.linspace(-self.part.span, self.part.span, self.part.steps).double()
        number = torch.arange(n)
        row, step = number // self.part.steps, number % self.part.steps
        z = base.repeat(n, 1)  # [n, D]
        z[number, order[row % len(order)]] = values[step]
        return z.reshape(n, *codes.shape[1:]).to(codes)
