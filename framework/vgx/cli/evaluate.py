"""Commands that judge runs: eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli import common
from vgx.cli.train import device_option

if TYPE_CHECKING:
    from vgx.console import Voice
    from vgx.parts.kinds import Metric
    from vgx.parts.registry import Registry
    from vgx.recipe.model import Recipe


@click.command(name="eval")
@click.argument("run", required=False)
@click.option(
    "--metrics", metavar="A,B",
    help="Metrics, as in a recipe; by default the recipe's eval.metrics, or all.",
)  # fmt: skip
@click.option(
    "--against", metavar="DATASET",
    help="Other pictures than the run's: a data set as in a recipe, or a recipe that has one.",
)  # fmt: skip
@click.option(
    "--sampler", "samplers", metavar="TYPE", multiple=True,
    help="Judge this sampler's pictures; repeatable. By default the recipe's.",
)  # fmt: skip
@click.option("-n", "n", default=10_000, show_default=True, type=click.IntRange(2, 10**7))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--best", is_flag=True, help="Judge the checkpoint that was best by eval.best.")
@device_option
@common
def evaluate(
    run: str | None,
    metrics: str | None,
    against: str | None,
    samplers: tuple[str, ...],
    n: int,
    seeds: int,
    best: bool,
    device: str | None,
) -> None:
    """Judge RUN (the newest by default): reconstructions, generated pictures, latents."""
    from vgx.console import Voice
    from vgx.evaluation import evaluate as evaluation
    from vgx.evaluation import tables as figures
    from vgx.recipe.load import load_recipe
    from vgx.runs import directory as rundir
    from vgx.sampling.model import registry_of
    from vgx.training.session import pick_device

    voice, found = Voice(), rundir.find(run)
    registry = registry_of(found)
    recipe = load_recipe(found.recipe_file, (), registry)
    asked = evaluation.Asked(
        _metrics(metrics, recipe, registry, voice),
        tuple(_part(recipe, "sampler", name, registry) for name in samplers) or (recipe.sampler,),
        None if against is None else _data(against, recipe, registry),
        n,
        seeds,
        best,
    )
    said = evaluation.evaluate(found, recipe, asked, registry, pick_device(device), voice)
    for notice in said["notices"]:
        voice.warn(notice)
    voice.say(f"{found.path}, step {said['step']:,}; spread over {seeds} seeds")
    for title, header, rows in figures.tables(said):
        voice.say(f"\n{title}")
        voice.table(header, rows)
    voice.say(f"\nFigures {found.path / 'evaluation.json'}")


def _metrics(
    text: str | None, recipe: Recipe, registry: Registry, voice: Voice
) -> tuple[Metric, ...]:
    """Return the metrics that are named, the recipe's, or all that these pictures allow."""
    from vgx.errors import RecipeError

    if text is not None:
        named = _read(f"[{text}]", "--metrics")
        return _judged_by(recipe, named, registry).eval.metrics
    if recipe.eval.metrics:
        return recipe.eval.metrics
    found = []
    for name in sorted({part.type for _, part in registry.offers("metric")}):
        try:
            metric = _judged_by(recipe, [name], registry).eval.metrics[0]
            metric.build(recipe.image)
        except RecipeError as error:
            voice.say(f"Left out: {name}: {str(error).splitlines()[0]}")
        else:
            found.append(metric)
    return tuple(found)


def _judged_by(recipe: Recipe, metrics: list[Any], registry: Registry) -> Recipe:
    from vgx.recipe.load import with_part

    fields = {"holdout": recipe.eval.holdout, "metrics": metrics}
    return with_part(recipe, "eval", fields, registry)


def _part(recipe: Recipe, field: str, text: str, registry: Registry) -> Any:
    """Return a part as a recipe would name it: its type, or its fields in braces."""
    from vgx.recipe.load import with_part

    said = _read(text, f"--{field}")
    fields = said if isinstance(said, dict) else {"type": said}
    if field == "sampler" and fields == {"type": recipe.sampler.type}:
        return recipe.sampler
    return getattr(with_part(recipe, field, fields, registry), field)


def _data(text: str, recipe: Recipe, registry: Registry) -> Any:
    """Return a data set: of a recipe's file, or as a recipe would name it."""
    from pathlib import Path

    from vgx.recipe.load import load_recipe

    if text.endswith((".yaml", ".yml")) and Path(text).is_file():
        return load_recipe(text, (), registry).dataset
    return _part(recipe, "dataset", text, registry)


def _read(text: str, option: str) -> Any:
    from vgx.errors import RecipeError
    from vgx.recipe.yaml import read

    node, faults = read(text, option)
    if faults:
        raise RecipeError(f"{option}: {faults[0].message}")
    return node.plain()


COMMANDS = (evaluate,)
