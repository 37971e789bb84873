"""Schedules that last as long as the training: their lengths as numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from vgx.errors import RecipeError
from vgx.parts.values import Schedule
from vgx.recipe.model import Recipe


def with_length(recipe: Recipe, steps: int | None, before: Recipe | None = None) -> Recipe:
    """Return a recipe in which each schedule without `steps` ends when the training does.

    `steps` is the length of the training, by default `train.steps`. In a recipe `before`, that of
    the run that goes on, the same schedule has its length already. What has no such
    schedule stays the same object. Raises `RecipeError` when a schedule needs a length and there is
    none.
    """
    settled: Recipe = _settled(recipe, steps or recipe.train.steps, before)
    return settled


def _settled(value: Any, steps: int | None, before: Any) -> Any:
    if isinstance(value, Schedule) and value.steps is None:
        if isinstance(before, Schedule) and value == before.model_copy(update={"steps": None}):
            return before
        if steps is None:
            raise RecipeError(
                "a schedule without steps: give it, or train.steps in place of epochs"
            )
        return value.model_copy(update={"steps": max(steps - value.after, 1)})
    if isinstance(value, BaseModel | dict):
        own, known = _named(value), _named(before)
        settled = {name: _settled(old, steps, known.get(name)) for name, old in own.items()}
        fields = {name: new for name, new in settled.items() if new is not own[name]}
        if not fields:
            return value
        return value | fields if isinstance(value, dict) else value.model_copy(update=fields)
    if isinstance(value, tuple):
        same = isinstance(before, tuple) and len(before) == len(value)
        others = before if same else (None,) * len(value)
        items = tuple(_settled(each, steps, b) for each, b in zip(value, others, strict=True))
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def _named(value: Any) -> dict[str, Any]:
    """Return the fields of a part or the entries of a mapping; nothing for other values."""
    if isinstance(value, BaseModel):
        return value.__dict__
    return value if isinstance(value, dict) else {}
