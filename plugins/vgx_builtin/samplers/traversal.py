"""One latent dimension at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Traversal(vgx.Sampler, type="traversal"):
    """Move one latent dimension while all others stay, a row for each (Higgins et al. 2017).

    Image i is at step i mod steps of row i div steps; after the last dimension they repeat from the
    first. The dimension goes from base - span s to base + span s, where s is its standard deviation
    over the stored latents. Nothing is drawn: the seed changes nothing. When the decoder takes
    labels, all rows have one label, which the seed chooses, and its stored latents alone count.
    """

    one_label = True
    dimensions: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """The dimensions, counted from 0 in the flattened latent; `null` takes all, those with the
    largest KL from N(0, 1) first, or the largest variance over the stored latents where the
    posteriors have no KL."""
    span: PositiveFloat = 3.0
    """How far to go to either side, in standard deviations of the dimension."""
    steps: Annotated[int, Field(ge=2)] = 10
    """Number of images in a row, including both ends."""
    base: Literal["mean", "code"] = "mean"
    """The latent that is moved: the mean of the run's stored latents, or the oldest of them."""

    @property
    def row_length(self) -> int:
        """One row for each dimension."""
        return self.steps

    def for_kl(self, kl: Tensor) -> Traversal:
        """Return a traversal of all dimensions by their KL, unless the dimensions are given."""
        if self.dimensions is not None:
            return self
        order = kl.flatten().argsort(descending=True, stable=True)  # [D]
        return self.model_copy(update={"dimensions": tuple(order.tolist())})

    def captions(self, n: int, codes: Tensor, kl: Tensor | None) -> list[str]:
        """Return for each row its dimension, the KL of this dimension and the range of values."""
        base, reach = self._base(codes), self.span * _deviations(codes)
        order = self._order(codes)
        texts = []
        for row in range(math.ceil(n / self.steps)):
            d = order[row % len(order)]
            nats = "" if kl is None else f", KL {kl.flatten()[d].item():.3g} nats"
            texts.append(f"z{d}{nats}, {base[d] - reach[d]:.2g} to {base[d] + reach[d]:.2g}")
        return texts

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]. Raises `RecipeError` for a missing dimension."""
        last = math.prod(latent.shape) - 1
        for dimension in self.dimensions or ():
            if dimension > last:
                message = f"a latent has the dimensions 0 to {last}"
                raise vgx.RecipeError(f"sampler traversal: dimensions: {dimension}: {message}")
        return _Walk(self)

    def _base(self, codes: Tensor) -> Tensor:
        """[D]  The latent that is moved."""
        flat = codes.flatten(1).double()  # [K, D]
        return flat.mean(0) if self.base == "mean" else flat[0]

    def _order(self, codes: Tensor) -> tuple[int, ...]:
        """Return the dimension of each row."""
        if self.dimensions is not None:
            return self.dimensions
        return tuple(_deviations(codes).argsort(descending=True, stable=True).tolist())


class _Walk:
    def __init__(self, part: Traversal) -> None:
        self.part = part

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Row after row, around the stored latents `codes` [K, *Z]."""
        import torch

        del generator
        part = self.part
        order = torch.tensor(part._order(codes))  # noqa: SLF001 - of the same module
        offsets = torch.linspace(-part.span, part.span, part.steps, dtype=torch.float64)  # [steps]
        number = torch.arange(n)
        row, step = number // part.steps, number % part.steps
        dimension = order[row % len(order)]  # [n]
        z = part._base(codes).repeat(n, 1)  # noqa: SLF001 - [n, D]
        z[number, dimension] += offsets[step] * _deviations(codes)[dimension]
        return z.reshape(n, *codes.shape[1:]).to(codes)


def _deviations(codes: Tensor) -> Tensor:
    """[D]  The standard deviation of each dimension over latents [K, *Z]."""
    return codes.flatten(1).double().std(0, correction=0)
