"""Codebooks that learn their vectors: by gradient, or as averages of what they stand for.

Letters: B images, Z the latent shape, F its channels, N vectors (one for each place of each image).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.posteriors import Quantised

ROUNDS = 10  # of k-means


class Codebook(nn.Module):
    """Vectors that the loss `vq` moves (van den Oord et al. 2017)."""

    def __init__(self, codes: int, channels: int, *, normalised: bool) -> None:
        super().__init__()
        self.codes, self.normalised = codes, normalised
        self.weight = nn.Parameter(torch.randn(codes, channels))  # so in any direction
        if not normalised:
            nn.init.uniform_(self.weight, -1 / codes, 1 / codes)

    def forward(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> the nearest vectors, place by place."""
        means, book = unit(means, self.normalised), unit(self.weight, self.normalised)
        indices = nearest(rows_of(means), book).view(len(means), *means.shape[2:])  # [B, *places]
        return Quantised(means, vectors_of(book, indices), indices)

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The vectors with these indices [n, *places]."""
        return vectors_of(unit(self.weight, self.normalised), indices)


class MovingCodebook(nn.Module):
    """Vectors that are moving averages of the means they are the nearest of.

    They move in each forward pass of a training that is made for gradients: neither in evaluation
    nor in a pass for the discriminator alone.
    """

    weight: Tensor
    sizes: Tensor
    sums: Tensor
    started: Tensor

    def __init__(
        self, codes: int, channels: int, decay: float, restart: float, *, normalised: bool = False
    ) -> None:
        super().__init__()
        self.codes, self.decay, self.restart = codes, decay, restart
        self.normalised = normalised
        self.register_buffer("weight", torch.randn(codes, channels))  # until the first pass
        self.register_buffer("sizes", torch.zeros(codes))  # N_i in the paper
        self.register_buffer("sums", torch.zeros(codes, channels))  # m_i in the paper
        self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Leave `started` on the CPU: it is read in each step, which must not wait for a GPU."""
        started, parent = self.started, cast("Any", super())
        parent._apply(fn, recurse)  # noqa: SLF001
        self.started = started
        return self

    def forward(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> the nearest vectors, place by place; then the vectors move."""
        means = unit(means, self.normalised)
        rows = rows_of(means).detach()  # [N, F]
        moves = self.training and torch.is_grad_enabled()
        if moves and not self.started:
            self._start(rows_of(vgx.gather(means.detach())))
        indices = nearest(rows, unit(self.weight, self.normalised))  # [N]
        placed = indices.view(len(means), *means.shape[2:])  # [B, *places]
        quantised = Quantised(means, self.vectors(placed), placed, "averaged")
        if moves:
            self._move(rows_of(vgx.gather(means.detach())), vgx.gather(placed).flatten())
        return quantised

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The vectors with these indices [n, *places]."""
        return vectors_of(unit(self.weight, self.normalised), indices)

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        """Begin with the clusters of the first minibatch [N, F], found by Lloyd's algorithm."""
        centres = drawn(rows, self.codes)  # [codes, F]
        for _ in range(ROUNDS):
            sizes, sums = clusters(rows, nearest(rows, unit(centres, self.normalised)), self.codes)
            centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None], centres)
        for buffer, value in ((self.weight, centres), (self.sizes, sizes), (self.sums, sums)):
            buffer.copy_(value)
        self.started.fill_(1)

    @torch.no_grad()
    def _move(self, rows: Tensor, indices: Tensor) -> None:
        """Average means [N, F] into their vectors, and restart vectors that too few come to."""
        sizes, sums = clusters(rows, indices, self.codes)  # [codes], [codes, F]
        self.sizes.lerp_(sizes, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Where nothing came, both have the same factor, so their quotient stays.
        moved = torch.where(sizes[:, None] > 0, self.sums / self.sizes[:, None], self.weight)
        few = self.restart * len(rows) / self.codes
        dead = (self.sizes < few)[:, None]  # [codes, 1]
        new = drawn(rows, self.codes).to(self.weight)  # [codes, F]
        self.weight.copy_(torch.where(dead, new, moved))
        self.sums.copy_(torch.where(dead, new * few, self.sums))
        self.sizes.clamp_(min=few)


class ResidualCodebooks(nn.Module):
    """Several codebooks, each for what those before it leave (Zeghidour et al. 2021)."""

    def __init__(self, levels: Sequence[MovingCodebook]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.codes = levels[0].codes

    def forward(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> sums of a vector of each level, indices [B, *places, levels]."""
        total, sums, indices = torch.zeros_like(means), list[Tensor](), list[Tensor]()
        for level in self.levels:
            quantised = level(means - total)
            total = total + quantised.codes  # [B, *Z]
            sums.append(total)
            indices.append(quantised.indices)
        return Quantised(means, total, torch.stack(indices, -1), "averaged", torch.stack(sums))

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The sums of the vectors with these indices [n, *places, levels]."""
        levels = zip(self.levels, indices.unbind(-1), strict=True)
        each = [cast("MovingCodebook", level).vectors(own) for level, own in levels]
        total = torch.zeros_like(each[0])  # [n, *Z]
        for vectors in each:
            total = total + vectors
        return total


def unit(vectors: Tensor, normalised: bool) -> Tensor:
    """Return vectors [*, F, *] of length 1 if they are `normalised`; else as they are."""
    return F.normalize(vectors, dim=1) if normalised else vectors


def rows_of(means: Tensor) -> Tensor:
    """[N, F]  The vectors of all places of means [B, *Z]."""
    return means.movedim(1, -1).reshape(-1, means.shape[1])


def vectors_of(book: Tensor, indices: Tensor) -> Tensor:
    """[n, *Z]  The rows of a codebook [codes, F] with these indices [n, *places]."""
    return F.embedding(indices, book).movedim(-1, 1)


@torch.no_grad()
def nearest(rows: Tensor, book: Tensor) -> Tensor:
    """[N]  The number of the nearest vector of a codebook [codes, F] for each of [N, F]."""
    return torch.cdist(rows, book).argmin(1)


def clusters(rows: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """[codes], [codes, F]  How many of [N, F] have each index, and their sums.

    They are sorted first: sums by `index_add_` are in another order each time on a GPU.
    """
    sizes = indices.new_zeros(codes).scatter_add_(0, indices, torch.ones_like(indices))
    ordered = rows[indices.argsort(stable=True)]
    return sizes.to(rows), torch.segment_reduce(ordered, "sum", lengths=sizes, unsafe=True)


def drawn(rows: Tensor, count: int) -> Tensor:
    """[count, F]  Random ones of [N, F]: different ones, as far as there are so many.

    They are drawn from PyTorch's own generator, as dropout masks are: its key in a training is the
    seed and the step.
    """
    with vgx.replicated():  # of the rows of all processes
        order = torch.randperm(len(rows), device=rows.device)
    return rows[order[torch.arange(count, device=rows.device) % len(rows)]]
