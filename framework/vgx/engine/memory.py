"""Memory: what can't fit is refused before it is made, and not killed by the system."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgx.errors import RecipeError

MAX_TENSORS = 20_000  # that one network may have; more are a slip in a recipe
# Weights, their gradients and two averages of an optimizer.
_COPIES = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
ROOM = 0.8  # of what fits by what is reckoned, which is no more than the least
ADVICE = "lower train.batch or image.size, or cut minibatches with train.accumulate"
CONTAINER = Path("/sys/fs/cgroup/memory.max")  # what a container may take, where there is one
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye)


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Let the block make no more tensors than can be trained on this machine.

    Raises `RecipeError` that begins with `what` before memory is taken.
    """
    with _Meter(what):
        yield


class _Meter(TorchFunctionMode):
    """Counts what PyTorch is asked to make, before it is made."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.bytes, self.count = what, 0, 0
        self.most = there_is(torch.device("cpu"))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at the size of every new tensor."""
        del types
        named = kwargs or {}
        if func in _MAKERS:
            self._count(named.get("size", args[0] if args and _is_size(args[0]) else args))
        return func(*args, **named)

    def _count(self, size: Any) -> None:
        self.count += 1
        self.bytes += 4 * math.prod(size)
        gigabytes = self.bytes * _COPIES / 1e9
        if self.bytes * _COPIES > self.most:
            there = f"this machine has {self.most / 1e9:,.1f} GB"
            message = f"training it takes more than {gigabytes:,.1f} GB, and {there}"
            raise RecipeError(f"{self.what}: {message}; lower image.size, latent or its widths")
        if self.count > MAX_TENSORS:
            message = f"more than {MAX_TENSORS:,} tensors; give fewer blocks or layers"
            raise RecipeError(f"{self.what}: {message}")


def _is_size(value: object) -> bool:
    return isinstance(value, tuple | list)


def there_is(device: torch.device) -> int:
    """Return the bytes of memory that a device has; of a container's, what it is allowed."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # there is none, or it says "max"
        return min(whole, int(CONTAINER.read_text()))
    return whole


@contextmanager
def kept(networks: Iterable[nn.Module]) -> Iterator[dict[int, int]]:
    """Count the bytes that the block keeps for gradients, by address; weights do not count."""
    weights = {p.untyped_storage().data_ptr() for network in networks for p in network.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            found[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


@dataclass(frozen=True)
class Need:
    """What a training takes at least, in bytes."""

    fixed: int  # weights, their gradients, what an optimizer keeps
    each: float  # for one picture of a pass
    there: int  # what the device has

    def fits(self) -> int:
        """Return how many pictures of a pass fit at most."""
        return max(int((self.there - self.fixed) / self.each), 0)

    def hold(self, batch: int, accumulate: int) -> None:
        """Raise `RecipeError` that names the number that would fit, when a minibatch does not."""
        piece = batch // accumulate
        if piece > self.fits():
            takes, has = (self.fixed + piece * self.each) / 1e9, self.there / 1e9
            message = f"train.batch: {piece:,} pictures at once take more than {takes:,.1f} GB"
            advice = self.advice(batch, accumulate)
            raise RecipeError(f"{message}, and there are {has:,.1f} GB; {advice}")

    def advice(self, batch: int, accumulate: int) -> str:
        """Return what should fit, with room for what cannot be reckoned."""
        most = int(ROOM * min(self.fits(), batch // accumulate))
        if not most:
            return "lower image.size or the widths of the networks"
        cuts = range(accumulate + 1, batch + 1)
        pieces = next(n for n in cuts if batch % n == 0 and batch // n <= most)
        return f"about {most:,} should fit: train.batch={most} or train.accumulate={pieces}"


def needed(networks: Iterable[nn.Module], kept: int, pictures: int, device: torch.device) -> Need:
    """Return what a training takes whose pass over so many pictures kept so many bytes."""
    weights = sum(p.nbytes for network in networks for p in network.parameters())
    return Need(weights * _COPIES, kept / pictures, there_is(device))


def keep_freed() -> None:
    """Have the C library keep what this process frees, where it is glibc.

    A step frees what the next one asks for again. By default each large piece goes back to the
    system, and clearing it anew is a good part of a step (docs/performance.md).
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, 2**30)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def ran_out(error: BaseException) -> bool:
    """Tell whether an error says that there was no memory."""
    said = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in said for text in ("can't allocate memory", "out of memory"))
    )
