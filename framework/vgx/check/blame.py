"""Whose fault it is: the part that was at work when an error was raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vgx.engine.memory import ADVICE, ran_out
from vgx.errors import PluginError, RecipeError, VgxError
from vgx.parts.base import BrokenError, Component
from vgx.parts.registry import Registry


@contextmanager
def blaming(
    registry: Registry,
    working: Mapping[str, tuple[Component, Any]] | None = None,
    when: Callable[[], str] = str,
    advice: str = ADVICE,
) -> Iterator[None]:
    """Name the part and the plugin that an error in the block comes from.

    `working` are parts and what they built, `when` says how far things were. Raises `PluginError`,
    or `RecipeError` with `advice` when memory ran out; an error of nobody's passes as it is.
    """
    try:
        yield
    except VgxError:
        raise
    except (Exception, SystemExit) as error:
        before = f"{when()}: " if when() else ""
        if ran_out(error):
            raise RecipeError(f"{before}not enough memory; {advice}") from error
        part = _culprit(error, working or {})
        if part is None:
            raise
        plugin = registry.owner(type(part))
        whose = f"{part.kind} '{part.type}' of {plugin.distribution} {plugin.version}"
        said = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{before}{whose}: {said}") from error


def _culprit(
    error: BaseException, working: Mapping[str, tuple[Component, Any]]
) -> Component | None:
    """Return the part of the innermost call that was one's, or of what one built."""
    if isinstance(error, BrokenError):
        return error.part
    frame = error.__traceback__
    calls: list[FrameType] = []
    while frame is not None:
        calls.insert(0, frame.tb_frame)  # innermost first
        frame = frame.tb_next
    for call in calls:
        this = call.f_locals.get("self")
        if isinstance(this, Component):
            return this
        for part, thing in working.values():
            # What a part built may be a function, too.
            if this is thing or call.f_code is getattr(thing, "__code__", None):
                return part
    return None
