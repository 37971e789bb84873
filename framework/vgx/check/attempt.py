"""Calls of parts while a recipe is checked: whatever fails names the part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgx.data.batches import Batch
from vgx.engine import memory
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.engine.losses import Term
from vgx.engine.surroundings import untouched
from vgx.errors import RecipeError, VgxError
from vgx.parts.base import BrokenError, Component
from vgx.parts.contract import ContractError


def call(part: Component, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call what a part built.

    Raises `BrokenError` with the error that it raised, or when it changes what all parts share.
    """
    try:
        with untouched(part):
            return function(*inputs)
    except (VgxError, BrokenError):
        raise
    except Exception as error:
        raise failed(part, error) from error


def failed(part: Component, error: Exception, when: str = "on the first batch") -> Exception:
    """Return the error to raise for one that a part raised."""
    if memory.is_out_of_memory(error):
        message = f"{part.kind} '{part.type}': not enough memory for the first batch"
        return RecipeError(f"{message}; {memory.ADVICE}")
    return BrokenError(part, f"failed {when}: {type(error).__name__}: {error}")


@contextmanager
def contract(part: Component) -> Iterator[None]:
    """Raise `BrokenError` that names the part when its contract is broken in the block."""
    try:
        yield
    except ContractError as error:
        raise BrokenError(part, f"on the first batch {error}") from error


@contextmanager
def keeping_buffers(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let networks change copies of their buffers in the block.

    The buffers are not restored in place, because a graph that was made in the block may need them.
    """
    buffers = [
        (module, name, buffer)
        for network in networks
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


@contextmanager
def read_only(part: Component, networks: Iterable[nn.Module]) -> Iterator[None]:
    """Put networks into evaluation mode in the block, for a part that is given them.

    Raises `BrokenError` when it changes one of their weights or buffers.
    """
    networks = list(networks)
    tensors = [t for n in networks for t in (*n.parameters(), *n.buffers())]
    before = [tensor._version for tensor in tensors]  # noqa: SLF001
    with evaluating(networks):
        yield
    if before != [tensor._version for tensor in tensors]:  # noqa: SLF001
        raise BrokenError(part, "it changes the model that it is given; it may only read it")


def values_of_terms(engine: Engine, batch: Batch) -> list[tuple[Term, Tensor | None]]:
    """Compute the terms of both players in one pass of a batch, as in the first step."""
    streams, values = engine.streams(), list[tuple[Term, Tensor | None]]()
    step = engine.forward(batch, 0, streams)
    for player in engine.players.values():  # the generator is the first
        if player.name == "discriminator":
            step = engine.forward.for_discriminator(step, streams)
        values += [(term, term.value(step)) for term in player.terms]
    return values


def alike(one: Tensor, other: Tensor, rounding: float = 1e-4) -> bool:
    """Return whether two tensors are equal but for rounding, relative to the largest number."""
    tolerance = rounding * max(one.abs().max().item(), 1e-2)
    return one.shape == other.shape and (one - other).abs().max().item() <= tolerance


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two mappings have the same names and equal tensors."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
