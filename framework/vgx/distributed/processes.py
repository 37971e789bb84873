"""The processes that a launcher such as torchrun started for one command, and what they agree on.

Numbers of a step go through `group`. What is here goes over the CPU: who stops, what only the first
process knows. The first process may take as long as it likes for what it does alone.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vgx.distributed.group import is_first
from vgx.distributed.state import Alone, group, join
from vgx.errors import LostError, Notice, RecipeError

T = TypeVar("T")
TIMEOUT = 600.0  # seconds that processes wait for each other in a step


@dataclass(frozen=True)
class Launched:
    """The processes of a launcher, as `torch.distributed` knows them."""

    rank: int
    size: int
    store: Any  # what the first process says, by number
    said: list[int]  # how many values it has said

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        with _others():
            torch.distributed.all_reduce(tensor)


def begin() -> None:
    """Join the other processes of this command, if a launcher started several.

    Notices are shown by the first process alone from then on: the others have the same.
    Raises `RecipeError` when the launcher's settings are incomplete, and `LostError` when the
    others cannot be reached.
    """
    size = os.environ.get("WORLD_SIZE", "").strip()
    if group().size > 1 or not (size.isdecimal() and int(size) > 1):
        return
    missing = [
        name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name, "")
    ]
    if missing:
        raise RecipeError(
            f"WORLD_SIZE is {size}, and {', '.join(missing)} not set: start vgx with torchrun or "
            "with --processes, or alone, without WORLD_SIZE"
        )
    dist: Any = torch.distributed

    timeout = datetime.timedelta(seconds=float(os.environ.get("VGX_TIMEOUT", TIMEOUT)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _others():
        store, rank, count = next(dist.rendezvous("env://", timeout=timeout))
        dist.init_process_group(
            backend, store=dist.PrefixStore("vgx", store), rank=rank, world_size=count,
            timeout=timeout,
        )  # fmt: skip
    join(Launched(rank, count, dist.PrefixStore("vgx said", store), [0]))
    if rank:
        warnings.simplefilter("ignore", Notice)


def restarts() -> int:
    """Return how often the launcher started these processes again after one failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch() -> str:
    """Return a name of this launch, the same after a restart; "" without a launcher."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", "")
    # Its default is the same for all launches, but its agent starts all processes of a machine.
    return f"{platform.node()} {os.getppid()}" if given == "none" else given


def local_rank() -> int:
    """Return the number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Return how many processes share the cores of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def largest(numbers: Sequence[int]) -> list[int]:
    """Return the largest of the numbers of all processes, place by place."""
    if group().size == 1:
        return [*numbers]
    shared = torch.tensor(numbers)
    with _others():
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in shared.tolist()]


def from_first(function: Callable[[], T]) -> T:
    """Call a function in the first process; return what it returns, JSON, in all of them.

    The others wait as long as it takes: whoever started them ends them when the first one fails.
    """
    own = group()
    if not isinstance(own, Launched):
        return function()
    own.said[0] += 1
    key = str(own.said[0])
    if own.rank == 0:
        value = function()
        with _others():
            own.store.set(key, json.dumps(value))
        return value
    with _others():
        while not own.store.check([key]):
            try:
                own.store.wait([key], datetime.timedelta(seconds=10))
            except torch.distributed.DistStoreError:  # not yet
                continue
        said: T = json.loads(own.store.get(key))
    return said


def wait_for_first() -> None:
    """Wait until the first process has done what it does alone."""
    from_first(lambda: None)


def tensors_from_first(tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the tensors of the first process, on the CPU, in all of them; the others give None."""
    if group().size == 1:
        return dict(tensors or {})
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
    listed: dict[str, Any] = from_first(
        lambda: {name: [str(t.dtype)[6:], [*t.shape]] for name, t in own.items()}
    )
    with _others():
        for name, (dtype, shape) in listed.items():
            if not is_first():
                own[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            torch.distributed.broadcast(own[name], 0)
    return own


def end() -> None:
    """Leave the others, at the end of a command."""
    if isinstance(group(), Launched):
        join(Alone())
        torch.distributed.destroy_process_group()


@contextmanager
def _others() -> Iterator[None]:
    """Raise `LostError` when the others cannot be reached in the block."""
    try:
        yield
    except RuntimeError as error:  # those of torch.distributed are
        rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        first = str(error).partition("\n")[0]
        message = f"process {rank} of {size} does not reach the others any more"
        raise LostError(f"{message}: {first}") from error
