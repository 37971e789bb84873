"""What parts must leave as it is: settings of PyTorch and of the process, and their inputs."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgx.files import working_folder
from vgx.parts.base import BrokenError, Component


def _enter(folder: str) -> None:
    if folder:
        os.chdir(folder)


def _device() -> torch.device:
    return torch.empty(0).device  # a tenth of the time of torch.get_default_device


def _use_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _filters() -> list[Any]:
    """Return the filters that make errors of warnings."""
    return [each for each in warnings.filters if each[0] == "error"]


def _filter(kept: list[Any]) -> None:
    warnings.filters = [each for each in warnings.filters if each[0] != "error" or each in kept]


# What each setting is called, and how it is read and set.
SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...] = (
    ("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("the default device", _device, _use_device),
    ("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
    # Only the object that entered it can leave it.
    ("inference mode", torch.is_inference_mode_enabled, bool),
    ("the number of threads", torch.get_num_threads, torch.set_num_threads),
    ("the precision of float32 products", torch.get_float32_matmul_precision,
     torch.set_float32_matmul_precision),
    ("deterministic algorithms", torch.are_deterministic_algorithms_enabled,
     torch.use_deterministic_algorithms),
    *(
        (f"autocast on {device}", partial(torch.is_autocast_enabled, device),
         partial(torch.set_autocast_enabled, device))
        for device in ("cpu", "cuda")
    ),
    ("the working directory", working_folder, _enter),
    ("the warnings that are errors", _filters, _filter),
    *(
        (f"the handler of {number.name}", partial(signal.getsignal, number),
         partial(signal.signal, number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE)
    ),
)  # fmt: skip


@contextmanager
def untouched(part: Component, inputs: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Raise `BrokenError` when a part changes a setting that all share, or an input, in the block.

    The settings are restored first. A tensor that was changed through `.data` is not noticed.
    """
    before = [read() for _, read, _ in SETTINGS]
    versions = {name: tensor._version for name, tensor in (inputs or {}).items()}  # noqa: SLF001
    changed = ""
    try:
        yield
    finally:
        for (name, read, write), old in zip(SETTINGS, before, strict=True):
            new = read()
            if new != old:
                write(old)
                changed = changed or f"it changes {name} from {old} to {new}"
    for name, tensor in (inputs or {}).items():
        if tensor._version != versions[name]:  # noqa: SLF001
            changed = changed or f"it changes {name} in place"
    if changed:
        raise BrokenError(part, f"{changed}; other parts need it as it was")
