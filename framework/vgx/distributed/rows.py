"""The rows of a minibatch that a process has, and values over all of its rows.

While a minibatch is shared, a part sees the rows of its process. What it computes of each image by
itself needs nothing else; what it computes of several images together, it computes of all rows
with the functions here. In a program on its own they return what they are given.

Letters: P processes, b images of a process, B = P b images of the minibatch, F kinds of fakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from vgx.distributed.group import stacked, sum_over_processes
from vgx.distributed.state import Sharing, group, share_as, sharing_now


@contextmanager
def sharing(new: Sharing) -> Iterator[None]:
    """Share a minibatch in the block in another way."""
    before = sharing_now()
    share_as(new)
    try:
        yield
    finally:
        share_as(before)


def replicated() -> AbstractContextManager[None]:
    """Compute in the block the same in each process, of the same values, as a program on its own.

    Random numbers are not cut, and BatchNorm takes the images that it is given for all there are.
    """
    return sharing(replace(sharing_now(), replicated=True))


def shares() -> bool:
    """Return whether what is computed now is of the rows of this process alone."""
    return sharing_now().images > 0 and not sharing_now().replicated


def gather(rows: Tensor) -> Tensor:
    """[B, ...]  Return all rows of the minibatch, of this process's rows [b, ...]; differentiable.

    Rows [F*b, ...], as those of a step's `fake`, become [F*B, ...] in the same order.
    """
    return all_rows(rows) if shares() else rows


def own_rows(rows: Tensor) -> Tensor:
    """[b, ...]  Return this process's rows of all rows [B, ...], or [F*b, ...] of [F*B, ...].

    Raises `ValueError` for rows that the processes cannot share equally.
    """
    if not shares():
        return rows
    processes, images = group(), sharing_now().images
    if len(rows) % processes.size:
        raise ValueError(f"{len(rows)} rows cannot be shared by {processes.size} processes")
    each = len(rows) // processes.size
    kinds = each // images if each % images == 0 else 1
    parts = torch.unflatten(rows, 0, (kinds, processes.size, -1))  # [F, P, b, ...]
    return parts[:, processes.rank].flatten(0, 1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of the values of all processes, such as means over their rows.

    It is differentiable. In a program on its own it is the value itself.
    """
    return sum_over_processes(value) / group().size if shares() else value


def as_computed(rows: Tensor) -> Tensor:
    """Return rows of this process as they are, and all of them where each computes the whole."""
    return all_rows(rows) if sharing_now().images and sharing_now().replicated else rows


def all_rows(rows: Tensor) -> Tensor:
    """[B, ...]  Return all rows of the minibatch that is shared, as `gather`."""
    images = sharing_now().images
    kinds = len(rows) // images if len(rows) % images == 0 else 1
    parts = stacked(torch.unflatten(rows, 0, (kinds, -1)))  # [P, F, b, ...]
    return parts.transpose(0, 1).flatten(0, 2)
