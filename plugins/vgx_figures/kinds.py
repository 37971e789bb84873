"""The kinds of figures, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import vgx
from vgx_figures import curves
from vgx_figures.drawing import Plot

KINDS: dict[str, Callable[..., Plot]] = {
    "curves": curves.draw,
}


def kind_of(what: str, options: Iterable[str]) -> Callable[..., Plot]:
    """Return the function that draws a kind of figure.

    Raises `RecipeError` for an unknown kind, and for an option that this kind does not have.
    """
    if what not in KINDS:
        raise vgx.RecipeError(f"no figure {what!r}; write one of {', '.join(KINDS)}")
    draw = KINDS[what]
    known = [
        name
        for name, parameter in inspect.signature(draw).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise vgx.RecipeError(f"the figure {what} has no option {name!r}; {has}")
    return draw
