"""Memory: what cannot fit is refused before it is allocated, so the system kills no process."""

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

from vgx.distributed.processes import local_size
from vgx.distributed.state import group
from vgx.errors import RecipeError

MAX_TENSORS = 20_000  # of one network; more are a mistake in a recipe
_COPIES = 4  # parameters, their gradients and two averages of an optimizer
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
ROOM = 0.8  # of the computed maximum, since a training needs more than what is counted
ADVICE = "lower train.batch or image.size, or cut minibatches with train.accumulate"
CONTAINER = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye)


class MemoryLimit(TorchFunctionMode):
    """A block that may create no more tensors than can be trained on this machine.

    Raises `RecipeError` that begins with `name` before the memory is allocated.
    """

    def __init__(self, name: str) -> None:
        """Count the tensors of a network with this name."""
        super().__init__()
        self.name, self.bytes, self.count, self.most = name, 0, 0, total_memory(torch.device("cpu"))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count the bytes of every new tensor."""
        del types
        if func in _FACTORIES:
            size = args[0] if args and isinstance(args[0], tuple | list) else args
            self._count((kwargs or {}).get("size", size))
        return func(*args, **(kwargs or {}))

    def _count(self, size: Any) -> None:
        self.count += 1
        self.bytes += 4 * math.prod(size)
        takes, has = self.bytes * _COPIES / 1e9, self.most / 1e9
        if takes > has:
            text = f"training it takes more than {takes:,.1f} GB, and there are {has:,.1f} GB"
            raise RecipeError(f"{self.name}: {text}; lower image.size, latent or its widths")
        if self.count > MAX_TENSORS:
            raise RecipeError(f"{self.name}: more than {MAX_TENSORS:,} tensors; give fewer layers")


def total_memory(device: torch.device) -> int:
    """Return the bytes of memory of a device for a process; in a container, at most its limit.

    The processes of a launcher share the memory of their machine.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no container, or no limit: "max"
        whole = min(whole, int(CONTAINER.read_text()))
    return whole // local_size()


@contextmanager
def saved_for_backward(networks: Iterable[nn.Module]) -> Iterator[dict[int, int]]:
    """Count the bytes that the block saves for gradients, by address, without parameters."""
    weights = {p.untyped_storage().data_ptr() for network in networks for p in network.parameters()}
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            saved[address] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would keep its graph alive for ever

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield saved


@dataclass(frozen=True)
class Need:
    """The memory that a training needs at least, in bytes."""

    fixed: int  # parameters, their gradients, the state of an optimizer
    each: float  # for one image of a forward pass
    there: int  # the memory of the device

    def fits(self) -> int:
        """Return how many images of one forward pass fit at most."""
        return max(int((self.there - self.fixed) / self.each), 0)

    def check(self, batch: int, accumulate: int) -> None:
        """Raise `RecipeError` with the number that fits when a minibatch does not fit.

        Each process has its share of it, in `accumulate` pieces.
        """
        piece = batch // group().size // accumulate
        if piece > self.fits():
            takes, has = (self.fixed + piece * self.each) / 1e9, self.there / 1e9
            message = f"train.batch: {piece:,} images at once take more than {takes:,.1f} GB"
            message += f", and there are {has:,.1f} GB"
            raise RecipeError(f"{message}; {self.advice(batch, accumulate)}")

    def advice(self, batch: int, accumulate: int) -> str:
        """Return settings that should fit, with room for what is not counted."""
        share = batch // group().size
        most = int(ROOM * min(self.fits(), share // accumulate))
        if not most:
            return "lower image.size or the widths of the networks"
        cuts = range(accumulate + 1, share + 1)
        cut = next(n for n in cuts if share % n == 0 and share // n <= most)
        fewer = most * accumulate * group().size
        return f"about {most:,} at once should fit: train.batch={fewer} or train.accumulate={cut}"


def needed(networks: Iterable[nn.Module], saved: int, images: int, device: torch.device) -> Need:
    """Return the memory of a training whose forward pass over `images` saved `saved` bytes."""
    weights = sum(p.nbytes for network in networks for p in network.parameters())
    return Need(weights * _COPIES, saved / images, total_memory(device))


def keep_freed() -> None:
    """Let the C library keep the memory that this process frees, if it is glibc.

    A step frees memory that the next step allocates again. By default each large piece goes back
    to the system, and clearing it again takes a good part of a step (docs/performance.md).
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, 2**30)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("can't allocate memory", "out of memory"))
    )
