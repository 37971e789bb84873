"""Which process this is, and how it shares a minibatch now.

It belongs to a process as its default device does, and is the only state of vgx that changes: the
autograd engine of PyTorch may compute a part of a step in another thread.

Letters: P processes, b images of a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Group(Protocol):
    """Processes that compute the same step, each on its rows of the minibatch."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of processes."""
        ...

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes: the same bits in each."""
        ...


@dataclass(frozen=True)
class Alone:
    """A group of one process."""

    rank: int = 0
    size: int = 1

    def add_up(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""


@dataclass(frozen=True)
class Sharing:
    """How a minibatch is shared."""

    images: int = 0  # b; 0: it is not shared
    replicated: bool = False  # each process computes the whole minibatch


_group: Group = Alone()
_sharing = Sharing()


def group() -> Group:
    """Return the processes that train together with this one."""
    return _group


def join(new: Group) -> None:
    """Make this process one of a group."""
    global _group  # noqa: PLW0603
    _group = new


def sharing_now() -> Sharing:
    """Return how a minibatch is shared now."""
    return _sharing


def share_as(new: Sharing) -> None:
    """Share a minibatch in this way from now on."""
    global _sharing  # noqa: PLW0603
    _sharing = new
