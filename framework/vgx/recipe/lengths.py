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
    the run that goes on, a schedule at the same place has its length already. What has no such
    schedule stays the same object. Raises `RecipeError` when a schedule needs a length and there is
    none.
    """
    settled: Recipe = _settled(recipe, steps or recipe.train.steps, before)
    return settled


def _settled(value: Any, steps: int | None, before: Any) -> Any:
    if isinstance(value, Schedule) and value.steps is None:
        if isinstance(before, Schedule):
            return value.model_copy(update={"steps": before.steps})
        if steps is None:
            raise RecipeError(
                "a schedule without steps: give it, or train.steps in place of epochs"
            )
        return value.model_copy(update={"steps": max(steps - value.after, 1)})
    if isinstance(value, BaseModel):
        known = before.__dict__ if isinstance(before, BaseModel) else {}
        fields = {
            name: new
            for name, old in value.__dict__.items()
            if (new := _settled(old, steps, known.get(name))) is not old
        }
        return value.model_copy(update=fields) if fields else value
    if isinstance(value, tuple):
        others = before if isinstance(before, tuple) and len(before) == len(value) else value
        items = [
            _settled(each, steps, None if others is value else other)
            for each, other in zip(value, others, strict=True)
        ]
        return tuple(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value
