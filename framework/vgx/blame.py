"""Whose fault it is: the part that was at work when an error was raised, or that hides state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn

from vgx.components import Component
from vgx.errors import PluginError, RecipeError, VgxError
from vgx.memory import ran_out
from vgx.recipe import Recipe
from vgx.registry import Registry


class BrokenError(Exception):
    """A part broke its contract while it worked."""

    def __init__(self, part: Component, message: str) -> None:
        """Keep whose fault it is."""
        super().__init__(message)
        self.part = part


@contextmanager
def blaming(
    recipe: Recipe,
    registry: Registry,
    networks: dict[str, nn.Module] | None = None,
    when: Callable[[], str] = str,
) -> Iterator[None]:
    """Name the part and the plugin that an error in the block comes from.

    `networks` are the recipe's, `when` says how far things were. Raises `PluginError`, or
    `RecipeError` when memory ran out; an error of nobody's passes as it is.
    """
    try:
        yield
    except VgxError:
        raise
    except (Exception, SystemExit) as error:
        before = f"{when()}: " if when() else ""
        if ran_out(error):
            advice = "lower train.batch or image.size, or cut minibatches with train.accumulate"
            raise RecipeError(f"{before}not enough memory; {advice}") from error
        part = _culprit(error, recipe, networks or {})
        if part is None:
            raise
        plugin = registry.owner(type(part))
        whose = f"{part.kind} '{part.type}' of {plugin.distribution} {plugin.version}"
        said = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{before}{whose}: {said}") from error


def _culprit(
    error: BaseException, recipe: Recipe, networks: dict[str, nn.Module]
) -> Component | None:
    """Return the part of the innermost call that was one's, or one of its network's."""
    if isinstance(error, BrokenError):
        return error.part
    owners: list[tuple[object, Component]] = []
    for name, network in networks.items():
        losses = [loss for loss in recipe.losses if name == f"loss {loss.label}"]
        owners.append((network, losses[0] if losses else getattr(recipe, name)))
    for this in reversed(list(_working(error.__traceback__))):
        if isinstance(this, Component):
            return this
        if owner := next((part for network, part in owners if this is network), None):
            return owner
    return None


def _working(trace: TracebackType | None) -> Iterator[object]:
    """Give the object of every call that a traceback passes through, outermost first."""
    while trace is not None:
        yield trace.tb_frame.f_locals.get("self")
        trace = trace.tb_next


@contextmanager
def holding_still(working: list[tuple[Component, Any]]) -> Iterator[None]:
    """See that the parts' objects keep no state in the block that a checkpoint would not hold.

    Weights and buffers may change, and what was `None` may be filled in. Raises `PluginError`.
    """
    before = [(part, _hidden(thing)) for part, thing in working]
    yield
    for (part, old), (_, thing) in zip(before, working, strict=True):
        new = _hidden(thing)
        changed = [name for name, value in old.items() if value != new.get(name, value)]
        if changed:
            message = (
                f"{part.kind} '{part.type}' changes its attribute {changed[0]} while it works, and "
                "a checkpoint would not hold it: make it a buffer of a module that build() returns"
            )
            raise PluginError(message)


def _hidden(thing: Any) -> dict[str, str]:
    """Return the plain attributes of an object, or of a module and those in it, by name."""
    modules = thing.named_modules() if isinstance(thing, nn.Module) else [("", thing)]
    return {
        f"{path}.{name}".lstrip("."): _told(value)
        for path, module in modules
        for name, value in _attributes(module).items()
        if _told(value)
    }


def _attributes(thing: Any) -> dict[str, Any]:
    if isinstance(thing, Component):
        return {**thing.__dict__, **(thing.__pydantic_private__ or {})}
    own = nn.Module().__dict__  # weights, buffers, hooks: those are held, or no state
    return {name: v for name, v in getattr(thing, "__dict__", {}).items() if name not in own}


def _told(value: object) -> str:
    """Return what a plain value is; nothing for one that is none."""
    if isinstance(value, torch.Tensor):
        return f"{id(value)} {value._version}"  # noqa: SLF001
    if isinstance(value, bool | int | float | str | list | tuple | set | dict):
        return repr(value)[:2000]
    return ""
