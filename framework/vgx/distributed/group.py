"""Sums over the processes of one training. A program on its own is a group of one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import record_function

from vgx.distributed.state import Alone, group, join

K = TypeVar("K", bound=Hashable)


@contextmanager
def alone() -> Iterator[None]:
    """Work in the block as a program on its own, whatever the other processes do."""
    before = group()
    join(Alone())
    try:
        yield
    finally:
        join(before)


def is_first() -> bool:
    """Return whether this process writes, draws and measures for all."""
    return group().rank == 0


class _Sum(torch.autograd.Function):
    """A sum over processes that has all derivatives.

    Each process has its own loss, and their mean is the loss: so what a sum contributes to it is
    the sum of what it contributes to each of them.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        total = tensor.clone(memory_format=torch.contiguous_format)
        with record_function("vgx: all-reduce"):
            group().add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total: Tensor = _Sum.apply(gradient)
        return total


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of the tensors of all processes, which have one shape; differentiable."""
    if group().size == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


def stacked(tensor: Tensor) -> Tensor:
    """[P, ...]  Return the tensors of all P processes, which have one shape; differentiable."""
    places = tensor.new_zeros((group().size, *tensor.shape))
    places[group().rank] = tensor
    return sum_over_processes(places)


def averaged(tensors: Mapping[K, Tensor]) -> dict[K, Tensor]:
    """Return the mean over processes of each tensor, by one sum for each dtype."""
    if group().size == 1:
        return dict(tensors)
    means: dict[K, Tensor] = {}
    for dtype in {tensor.dtype: None for tensor in tensors.values()}:
        own = {name: tensor for name, tensor in tensors.items() if tensor.dtype == dtype}
        flat = torch.cat([tensor.detach().flatten() for tensor in own.values()])
        with record_function("vgx: all-reduce"):
            group().add_up(flat)
        flat /= group().size
        pieces = torch.split(flat, [tensor.numel() for tensor in own.values()])
        means |= {
            name: piece.view(tensor.shape)
            for (name, tensor), piece in zip(own.items(), pieces, strict=True)
        }
    return {name: means[name] for name in tensors}
