"""Several processes of a training inside of one program, so that parts are tried on them at once.

Each is a thread. One of them works at a time, until it waits for the others in a sum; so what
belongs to a process, such as PyTorch's own random numbers, is put in place when its turn comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from vgx.distributed.state import Group, Sharing, group, join, share_as, sharing_now

T = TypeVar("T")


class _Turns:
    """Whose turn it is, and what the processes add up."""

    def __init__(self, size: int) -> None:
        self.size, self.turn = size, 0
        self.changed = threading.Condition()
        self.given: list[Tensor | None] = [None] * size
        self.ended: set[int] = set()
        self.failed = False

    def wait(self, rank: int) -> None:
        """Wait for the turn of a process. Raises `RuntimeError` when another one failed."""
        with self.changed:
            self.changed.wait_for(lambda: self.turn == rank or self.failed)
        if self.failed:
            raise RuntimeError("another process failed")

    def pass_on(self, rank: int) -> None:
        """Give the turn to the next process that has not ended."""
        with self.changed:
            following = ((rank + n) % self.size for n in range(1, self.size + 1))
            self.turn = next((each for each in following if each not in self.ended), -1)
            self.changed.notify_all()


class _Member:
    """One of the processes."""

    def __init__(self, turns: _Turns, rank: int) -> None:
        self.turns, self.rank, self.size = turns, rank, turns.size

    def add_up(self, tensor: Tensor) -> None:
        """Give a tensor, wait until all have given theirs, and take the sum."""
        turns = self.turns
        if turns.ended:
            raise RuntimeError("another process has ended and adds nothing up any more")
        turns.given[self.rank] = tensor.detach().clone()
        self._let_others_work()  # each gives its own
        tensors = [each for each in turns.given if each is not None]
        if {each.shape for each in tensors} != {tensor.shape}:
            raise RuntimeError(f"processes add up {[[*each.shape] for each in tensors]}")
        total = torch.stack(tensors).sum(0)
        self._let_others_work()  # each takes the sum before one gives something new
        tensor.copy_(total)

    def _let_others_work(self) -> None:
        before = group(), sharing_now(), torch.get_rng_state()
        self.turns.pass_on(self.rank)
        self.turns.wait(self.rank)
        _work_as(*before)


def _work_as(own: Group, sharing: Sharing, random: Tensor) -> None:
    """Put in place what belongs to one process."""
    join(own)
    share_as(sharing)
    torch.set_rng_state(random)


def in_processes(size: int, function: Callable[[], T]) -> list[T]:
    """Call a function in so many processes; return what it returns in each.

    An error in one of them is raised. Nothing of the program itself changes.
    """
    turns = _Turns(size)
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    before = group(), sharing_now(), torch.get_rng_state()

    def work(rank: int) -> None:
        try:
            turns.wait(rank)
            _work_as(_Member(turns, rank), Sharing(), before[2])
            results[rank] = function()
        except BaseException as error:  # noqa: BLE001 - raised below, in the program's own thread
            errors.append(error)
            turns.failed = True
        turns.ended.add(rank)
        turns.pass_on(rank)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _work_as(*before)
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]
