"""What an evaluation measures, from names and texts as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgx.console import Console
from vgx.errors import RecipeError
from vgx.evaluation.evaluate import Settings
from vgx.files import user_path
from vgx.parts.base import Component
from vgx.parts.kinds import Metric
from vgx.parts.registry import Registry
from vgx.recipe.library import find_recipe
from vgx.recipe.load import load_recipe, with_part
from vgx.recipe.model import Recipe
from vgx.recipe.places import dataset_at
from vgx.recipe.yaml import read_setting


def settings_for(
    recipe: Recipe,
    registry: Registry,
    console: Console,
    metrics: str | Sequence[Any] | None,
    against: str | Component | None,
    samplers: str | Component | Sequence[Any],
    n: int,
    seeds: int,
    best: bool,
    step: int | None = None,
) -> Settings:
    """Return what is to be measured; arguments as in `vgx eval` and `vgx.evaluate`.

    Raises `RecipeError` for names that are not known, and for too few images or seeds.
    """
    if n < 2 or seeds < 1:
        raise RecipeError(f"n={n}, seeds={seeds}: give at least 2 images and 1 seed")
    several = [samplers] if isinstance(samplers, str | Component) else samplers
    chosen, named = _metrics(metrics, recipe, registry, console)
    return Settings(
        chosen,
        named,
        tuple(part_of(recipe, "sampler", each, registry, "--sampler") for each in several)
        or (recipe.sampler,),
        None if against is None else _dataset(against, recipe, registry),
        n,
        seeds,
        best,
        step,
    )


def _metrics(
    given: str | Sequence[Any] | None, recipe: Recipe, registry: Registry, console: Console
) -> tuple[tuple[Metric, ...], bool]:
    """Return the metrics that are given, else the recipe's, else all; and whether they were."""
    if isinstance(given, str):
        node = read_setting(f"[{given}]", "--metrics")
        if node.unread:
            raise RecipeError(f"--metrics: {node.unread}")
        given = node.plain()
    if given is not None:
        return _with_metrics(recipe, [*given], registry).eval.metrics, True
    if recipe.eval.metrics:
        return recipe.eval.metrics, True
    found: list[Metric] = []
    for _, part in registry.offers("metric"):
        try:
            (metric,) = _with_metrics(recipe, [part.type], registry).eval.metrics
        except RecipeError as error:
            console.print(f"Left out: metric {part.type}: {str(error).splitlines()[0]}")
            continue
        if metric.on_request:
            console.print(f"Left out: metric {part.type}: it is computed when --metrics names it")
        else:
            found.append(metric)
    return tuple(found), False


def _with_metrics(recipe: Recipe, metrics: list[Any], registry: Registry) -> Recipe:
    fields = {"holdout": recipe.eval.holdout, "metrics": metrics}
    return with_part(recipe, "eval", fields, registry, "--metrics")


def part_of(recipe: Recipe, field: str, given: Any, registry: Registry, option: str) -> Any:
    """Return the part that an option names as in a recipe: by its type or by fields in braces."""
    if isinstance(given, Component):
        return given
    if field == "sampler" and given == recipe.sampler.type:
        return recipe.sampler
    if not isinstance(given, dict):
        value = read_setting(given, option)
        given = value.plain() if isinstance(value.value, dict) else {"type": value}
    return getattr(with_part(recipe, field, given, registry, option), field)


def _dataset(given: str | Component, recipe: Recipe, registry: Registry) -> Any:
    """Return the data set of a recipe, of a folder or file, or as a text describes one."""
    if isinstance(given, Component):
        return given
    file = find_recipe(user_path(given))
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return load_recipe(file, (), registry).dataset
    described = dataset_at(given, registry) if user_path(given).exists() else given
    return part_of(recipe, "dataset", described, registry, "--against")
