"""The kinds of figures, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import vgx

if TYPE_CHECKING:
    from vgx_figures.drawing import Plot

FROM_FILES = ("curves", "metrics", "gradients")  # these need nothing but the files of a run
FROM_MODELS = ("samples", "recon", "kl", "latents")  # these run its networks
KINDS = (*FROM_FILES, *FROM_MODELS)


def kind_of(what: str, options: Mapping[str, Any]) -> Callable[..., Plot]:
    """Return the function that draws a kind of figure, with these options.

    One text where several may be given is a list of one. Raises `RecipeError` for an unknown kind,
    and for an option that this kind does not have.
    """
    draw, given = _function(what), dict(options)
    known = inspect.getfullargspec(draw).kwonlydefaults or {}
    for name, value in options.items():
        if name not in known:
            message = f"the figure {what} has no option {name!r}; it has {', '.join(known)}"
            raise vgx.RecipeError(message)
        if isinstance(value, str) and known[name] == ():
            given[name] = (value,)
    return partial(draw, **given)


def _function(what: str) -> Callable[..., Plot]:
    """Import what a kind of figure needs: not all of them need PyTorch."""
    if what not in KINDS:
        raise vgx.RecipeError(f"no figure {what!r}; write one of {', '.join(KINDS)}")
    if what in FROM_FILES:
        from vgx_figures import bars, curves

        drawing: dict[str, Callable[..., Plot]] = {
            "curves": curves.draw_curves,
            "metrics": bars.draw_metrics,
            "gradients": bars.draw_gradients,
        }
        return drawing[what]
    from vgx_figures import grids, latents

    drawing = {
        "samples": grids.draw_samples,
        "recon": grids.draw_reconstructions,
        "kl": latents.draw_kl,
        "latents": latents.draw_map,
    }
    return drawing[what]
