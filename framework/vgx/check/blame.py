"""Attribution of errors: which part, of which plugin, was working when an error was raised."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vgx.engine.engine import Engine
from vgx.engine.memory import ADVICE, is_out_of_memory
from vgx.errors import PluginError, RecipeError, VgxError, by_user
from vgx.parts.base import BrokenError, Component
from vgx.parts.registry import Registry, line_of
from vgx.parts.values import ImageSpec

Working = Mapping[str, tuple[Component, Any]]  # parts and what they built, by name


def working(engine: Engine) -> dict[str, tuple[Component, Any]]:
    """Return the parts that a step uses and what they built, by the name that findings have."""
    recipe = engine.recipe
    parts: dict[str, tuple[Component, Any]] = {
        name: (part, engine.networks[name]) for name, part in recipe.networks.items()
    }
    parts |= {part.label: (part, module) for part, module in engine.losses}
    for field in ("augment", "diff_augment"):
        pairs = zip(getattr(recipe, field), getattr(engine.forward, field), strict=True)
        parts |= {f"{field}.{index}": pair for index, pair in enumerate(pairs)}
    return parts


@contextmanager
def blaming(
    registry: Registry,
    working: Working | None = None,
    when: Callable[[], str] = str,
    advice: str = ADVICE,
) -> Iterator[None]:
    """Name the part and the plugin that an error in the block comes from.

    `working` are the parts that may raise it; `when` returns how far the run was, to begin the
    message with. Raises `PluginError`, or `RecipeError` with `advice` when memory ran out. An error
    that comes from no plugin passes unchanged.
    """
    try:
        yield
    except VgxError:
        raise
    # Other people's code may raise anything, SystemExit and KeyboardInterrupt too.
    except BaseException as caught:
        error = caught
        if by_user(error):
            raise
        # A training is a generator, in which a StopIteration becomes a RuntimeError (PEP 479).
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            error = error.__cause__
        before = f"{when()}: " if when() else ""
        if is_out_of_memory(error):
            raise RecipeError(f"{before}not enough memory; {advice}") from error
        part = responsible(error, working or {})
        if part is None:
            for plugin in reversed(registry.plugins):  # plugin files come before installed plugins
                if plugin.parts and (line := line_of(error, plugin.parts[0].__module__)):
                    what = f"{type(error).__name__}: {error}"
                    raise PluginError(f"{before}{plugin.title}: {what} (at {line})") from error
            raise
        broken = isinstance(error, BrokenError)
        message = str(error) if broken else f"{type(error).__name__}: {error}"
        line = line_of(error.__cause__ if broken else error, type(part).__module__)
        place = f" (at {line})" if line else ""
        hint = _hint(error.__cause__ if broken else error)
        raise PluginError(f"{before}{registry.describe(part)}: {message}{place}{hint}") from error


def _hint(error: BaseException | None) -> str:
    """Return advice for a `TypeError` below code that was given images that are not square.

    Their size is no number, which parts written for square images do not expect.
    """
    if isinstance(error, TypeError):
        for frame in _frames(error):
            for value in frame.f_locals.values():
                if isinstance(value, ImageSpec) and value.height != value.width:
                    side = min(value.height, value.width)
                    given = f"here images are {value.height} x {value.width} pixels"
                    return f"; {given}: if it takes square ones only, write image.size={side}"
    return ""


def _frames(error: BaseException) -> list[FrameType]:
    """Return the frames of an error's traceback, innermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]


def responsible(error: BaseException, working: Working) -> Component | None:
    """Return the part of the innermost call that belongs to a part, or to what a part built."""
    if isinstance(error, BrokenError):
        return error.part
    for frame in _frames(error):
        this = frame.f_locals.get("self")
        if isinstance(this, Component):
            return this
        for part, built in working.values():
            # What a part built may be a function, too.
            if this is built or frame.f_code is getattr(built, "__code__", None):
                return part
    return None
