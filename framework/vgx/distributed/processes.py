"""The processes that a launcher such as torchrun started for one command, and what they agree on.

Numbers of a step go through `group`. What is here goes over the CPU: who stops, what only the first
process knows, why one has failed. The first process may take as long as it likes for what it does
alone; in a step they wait VGX_TIMEOUT seconds for each other.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vgx.distributed.group import is_first
from vgx.distributed.launcher import end_with_launcher
from vgx.distributed.state import Alone, group, join
from vgx.errors import LostError, Notice, RecipeError

T = TypeVar("T")
TIMEOUT = 600.0  # seconds that processes wait for each other, to begin and in a step
FOREVER = datetime.timedelta(days=365)
FAILURE_SECONDS = 2.0  # in which the others learn that the first process failed
POLL = 0.02  # seconds between two looks at what the others do, at most


@dataclass(frozen=True)
class Launched:
    """The processes of a launcher, as `torch.distributed` knows them."""

    rank: int
    size: int
    store: Any  # where a process that fails says why
    timeout: float  # seconds
    # The group that waits so long. It is closed when the list, its only owner, is emptied.
    steps: list[Any]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        with _connected():
            torch.distributed.all_reduce(tensor, group=self.steps[0])


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
    timeout = _timeout()
    end_with_launcher()
    dist: Any = torch.distributed
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    with _connected("at the beginning"):
        patience = datetime.timedelta(seconds=TIMEOUT)
        store, rank, count = next(dist.rendezvous("env://", timeout=patience))
        # A launcher that starts them again may keep the entries of before, such as their addresses.
        store = dist.PrefixStore(f"vgx {restarts()} of {count}", store)
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=count,
            timeout=FOREVER,
        )  # fmt: skip
        steps = dist.new_group(timeout=datetime.timedelta(seconds=timeout))
    join(Launched(rank, count, dist.PrefixStore("failed", store), timeout, [steps]))
    if rank:
        warnings.simplefilter("ignore", Notice)


def _timeout() -> float:
    """Return the seconds that processes wait for each other in a step."""
    text = os.environ.get("VGX_TIMEOUT", str(TIMEOUT))
    with suppress(ValueError):
        if 0 < float(text) < FOREVER.total_seconds():
            return float(text)
    raise RecipeError(f"VGX_TIMEOUT: {text!r} is no number of seconds; write one like 600")


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
    own = group()
    if not isinstance(own, Launched):
        return [*numbers]
    shared = torch.tensor(numbers)
    with _connected():
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, own.steps[0])
    return [int(number) for number in shared.tolist()]


def from_first(function: Callable[[], T]) -> T:
    """Call a function in the first process; return what it returns, JSON, in all of them.

    The others wait as long as it takes, and the first process `VGX_TIMEOUT` for them. Raises
    `LostError` in the others when the function raises an error.
    """
    own = group()
    if not isinstance(own, Launched):
        return function()
    if own.rank == 0:
        value = function()
        content = json.dumps(value).encode()
        _broadcast(torch.tensor([len(content)]), own.timeout)
        _broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), own.timeout)
        return value
    length = int(_broadcast(torch.zeros(1, dtype=torch.int64)))
    received: T = json.loads(bytes(_broadcast(torch.zeros(length, dtype=torch.uint8)).tolist()))
    return received


def wait_for_first() -> None:
    """Wait until the first process has done what it does alone."""
    from_first(lambda: None)


def wait_for_all() -> None:
    """Wait until all processes are here, as long as it takes: each machine decodes its images."""
    if isinstance(group(), Launched):
        with _connected():
            _finish(torch.distributed.all_reduce(torch.zeros(1), async_op=True))


def once_a_machine(function: Callable[[], T]) -> T:
    """Call a function in all processes: first in one of each machine, and then in the others."""
    if local_rank() > 0:
        wait_for_all()
        return function()
    result = function()
    wait_for_all()
    return result


def _broadcast(tensor: Tensor, seconds: float = FOREVER.total_seconds()) -> Tensor:
    """Return the tensor of the first process, in all."""
    with _connected():
        _finish(torch.distributed.broadcast(tensor, 0, async_op=True), seconds)
    return tensor


def _finish(work: Any, seconds: float = FOREVER.total_seconds()) -> None:
    """Wait until all have done their part of something. Signals are heard meanwhile."""
    limit, pause = time.monotonic() + seconds, POLL / 20
    while not work.is_completed():
        if time.monotonic() > limit:
            raise RuntimeError(f"they were not ready within {seconds:g} seconds (VGX_TIMEOUT)")
        time.sleep(pause)
        pause = min(2 * pause, POLL)
    work.wait()


def tensors_from_first(tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the tensors of the first process, on the CPU, in all of them; the others give None."""
    found = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
    listed: dict[str, Any] = from_first(
        lambda: {name: [str(t.dtype)[6:], [*t.shape]] for name, t in found.items()}
    )
    if group().size > 1:
        for name, (dtype, shape) in listed.items():
            if not is_first():
                found[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            _broadcast(found[name])
    return found


def end() -> None:
    """Leave the others, at the end of a training."""
    own = group()
    if isinstance(own, Launched):
        join(Alone())
        own.steps.clear()
        torch.distributed.destroy_process_group()


@contextmanager
def _connected(when: str = "any more") -> Iterator[None]:
    """Raise `LostError` when the others cannot be reached in the block."""
    try:
        yield
    except RuntimeError as error:  # those of torch.distributed are
        raise _lost(_plain(str(error)), when) from error


def _lost(reason: str, when: str) -> LostError:
    """Return the error of a process that is left alone: it says why another one failed, if known.

    Its exit code is that of the other one.
    """
    own = group()
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if isinstance(own, Launched):
        with suppress(RuntimeError):  # the store ends with the launcher
            for other in range(own.size):
                if other != own.rank and own.store.check([str(other)]):
                    message, code, lost = json.loads(own.store.get(str(other)))
                    if not lost:
                        return LostError(f"process {other} of {size}: {message}", code)
    return LostError(f"process {rank} of {size} does not reach the others {when}: {reason}")


def _plain(reason: str) -> str:
    """Return what an error of `torch.distributed` means, for people."""
    if "EADDRINUSE" in reason:
        place = f"port {os.environ.get('MASTER_PORT')} of {os.environ.get('MASTER_ADDR')}"
        return f"another program uses {place}; set another MASTER_PORT for all of them"
    if re.search(r"closed by peer|reset by peer|[Bb]roken pipe", reason):
        return "another one has ended"
    if (joined := re.search(r"(\d+)/(\d+) clients joined", reason)) is not None:
        return f"{joined[1]} of {joined[2]} processes came within {TIMEOUT:g} seconds"
    if re.search(r"[Tt]imed? ?out", reason):
        return "they gave no answer in time (VGX_TIMEOUT, seconds)"
    return reason.partition("\n")[0]


def message_of_failure(message: str, code: int, *, lost: bool) -> str:
    """Return what this process prints when it fails: "" when the first process prints it.

    The others learn it at once, and fail with the same message. `lost` says that this process
    itself only failed since another one did.
    """
    own, size = group(), os.environ.get("WORLD_SIZE")
    if not isinstance(own, Launched):
        # Whoever presses Ctrl-C at the beginning means all of them.
        return "" if code == 130 and os.environ.get("RANK", "0") != "0" else message
    join(Alone())
    with suppress(RuntimeError):
        own.store.set(str(own.rank), json.dumps([message, code, lost]))
        own.steps.clear()
        torch.distributed.destroy_process_group()
        if own.rank > 0:
            if _stored(own, ["0"], own.timeout):
                own.store.set(f"{own.rank} was informed", "")
                return ""
        elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            # The store is in this process, and ends with it.
            _stored(own, [f"{other} was informed" for other in range(1, own.size)], FAILURE_SECONDS)
    return message if own.rank == 0 or lost else f"process {own.rank} of {size}: {message}"


def _stored(own: Launched, keys: list[str], seconds: float) -> bool:
    """Return whether the store has these entries within some time."""
    limit = time.monotonic() + seconds
    while not (found := own.store.check(keys)) and time.monotonic() < limit:
        time.sleep(POLL)
    return bool(found)
