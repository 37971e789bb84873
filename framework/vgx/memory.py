"""Memory: networks that can't fit are refused before they are made, not killed by the system."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vgx.errors import RecipeError

MAX_TENSORS = 20_000  # that one network may have; more are a slip in a recipe
# Weights, their gradients and two averages of an optimizer.
_COPIES = 4
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
        self.most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

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


def ran_out(error: BaseException) -> bool:
    """Tell whether an error says that there was no memory."""
    said = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in said for text in ("can't allocate memory", "out of memory"))
    )
