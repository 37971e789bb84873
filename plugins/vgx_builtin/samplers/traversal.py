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

    Picture i is at step i mod steps of row i div steps, and each row moves a dimension of its own;
    after the last dimension comes the first again. Nothing is drawn: the seed changes nothing.
    """

    dimensions: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Which ones, counted from 0 in the flattened latent; `null` takes those first whose variance
    over the stored latents is largest."""
    span: PositiveFloat = 3.0
    """How far to go to either side of 0; the prior's standard deviation is 1."""
    steps: Annotated[int, Field(ge=2)] = 10
    """How many pictures a row has, both ends among them."""
    base: Literal["mean", "code"] = "mean"
    """Where the other dimensions stay: at the mean of the run's stored latents, or at the oldest
    of them."""

    def build(self, latent: vgx.LatentSpec) -> vgx.Drawer:
        """Make what draws [n, *Z]. Raises `RecipeError` for a dimension that is not there."""
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
        """[n, *Z]  Row after row, around what codes [K, *Z] say."""
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
