"""Orthogonal regularisation of a network's weights."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Orthogonal(vgx.Loss, type="orthogonal"):
    """Filters of a layer that point in different directions (Brock et al. 2019, eq. 3).

    sum over the weights W of || W W^T * (1 - I) ||^2: all products of two different rows, squared.
    A row is a filter of a convolution, or what leads to one output of a linear layer; of a
    transposed convolution it is what one input channel leads to. Its length stays free. Parameters
    with one dimension, such as biases and gains, have no rows. Frozen ones count too, without a
    gradient: `leave_out` saves their time. With spectral norm W is the weight before it. The
    authors' program adds the gradient 2 (W W^T * (1 - I)) W, half of that of this value: its
    strength 1e-4 is the weight 5e-5 here.
    """

    weight: vgx.Weight = 1e-4
    """Beta in the paper, which has 1e-4."""
    network: Literal["encoder", "decoder", "discriminator"] = "decoder"
    """The network whose weights count; the player that trains it gets the term."""
    leave_out: tuple[str, ...] = ("*embedding*",)
    """Patterns of the names of parameters to leave out; by default vectors for labels, as in the
    authors' program."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Return an object with the term of the network's player."""
        del image, latent
        return _OfDiscriminator(self) if self.network == "discriminator" else _OfGenerator(self)

    def value(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when all rows of each weight are orthogonal."""
        own = step.parameters(self.network)
        named = {name: each for name, each in own.items() if each.dim() > 1}
        sums = [
            squared_products(each.flatten(1))
            for name, each in named.items()
            if not any(fnmatchcase(name, pattern) for pattern in self.leave_out)
        ]
        if not sums:
            given = f"leave_out leaves no weight of the {self.network}; it has {', '.join(named)}"
            raise vgx.RecipeError(f"orthogonal: {given}")
        return sum(sums[1:], sums[0])


def squared_products(rows: Tensor) -> Tensor:
    """Return the sum of the squared products of two different rows of [N, M]: a scalar."""
    if len(rows) <= rows.shape[1]:
        gram = rows @ rows.mT  # [N, N]
        return (gram - gram.diag().diag()).square().sum()
    # The products of all columns have the same sum of squares, and are fewer.
    return (rows.mT @ rows).square().sum() - rows.square().sum(1).square().sum()


class _OfGenerator:
    def __init__(self, part: Orthogonal) -> None:
        self.part = part

    def generator(self, step: vgx.Step) -> Tensor:
        return self.part.value(step)


class _OfDiscriminator:
    def __init__(self, part: Orthogonal) -> None:
        self.part = part

    def discriminator(self, step: vgx.Step) -> Tensor:
        return self.part.value(step)
