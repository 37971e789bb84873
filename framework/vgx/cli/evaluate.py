"""The command that evaluates runs: eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli.options import common, device_option, find_trusted, step_option, trust_option

if TYPE_CHECKING:
    from vgx.console import Console
    from vgx.parts.kinds import Metric
    from vgx.parts.registry import Registry
    from vgx.recipe.model import Recipe


@click.command(name="eval")
@click.argument("run", required=False)
@click.option(
    "--metrics", metavar="A,B",
    help="Metrics, as in a recipe; by default the recipe's, or all that need no download.",
)  # fmt: skip
@click.option(
    "--against", metavar="DATASET",
    help="Other images than the run's: a folder, a data set as in a recipe, or a recipe.",
)  # fmt: skip
@click.option(
    "--sampler", "samplers", metavar="TYPE", multiple=True,
    help="Evaluate images of this sampler; repeatable. By default the recipe's.",
)  # fmt: skip
@click.option("-n", "n", default=10_000, show_default=True, type=click.IntRange(2, 10**7))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--best", is_flag=True, help="Evaluate the checkpoint that was best by eval.best.")
@step_option
@device_option
@trust_option
@common
def evaluate(
    run: str | None,
    metrics: str | None,
    against: str | None,
    samplers: tuple[str, ...],
    n: int,
    seeds: int,
    best: bool,
    step: int | None,
    device: str | None,
    trust: bool,
) -> None:
    """Evaluate RUN (the newest by default): reconstructions, generated images, latents."""
    if len(set(samplers)) < len(samplers):
        raise click.UsageError("Give each --sampler once.")
    if best and step is not None:
        raise click.UsageError("Leave out --best or --step.")
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.check.blame import blaming
    from vgx.console import Console
    from vgx.engine.build import pick_device
    from vgx.evaluation.evaluate import Settings, evaluate_run
    from vgx.evaluation.tables import meanings, tables
    from vgx.recipe.load import load_recipe
    from vgx.runs.trust import registry_of
    from vgx.training import environment

    environment.one_process()
    console = Console()
    registry = registry_of(trained)
    recipe = load_recipe(trained.recipe_file, (), registry)
    chosen, named = _metrics(metrics, recipe, registry, console)
    settings = Settings(
        chosen,
        named,
        tuple(_part(recipe, "sampler", name, registry) for name in samplers) or (recipe.sampler,),
        None if against is None else _dataset(against, recipe, registry),
        n,
        seeds,
        best,
        step,
    )
    with blaming(registry):
        results = evaluate_run(trained, recipe, settings, registry, pick_device(device), console)
    for notice in results["notices"]:
        console.warn(notice)
    console.print(f"{trained.path}, step {results['step']:,}; spread over {seeds} seeds")
    for title, header, rows in tables(results):
        console.print(f"\n{title}")
        console.table(header, rows)
    console.print("\nWhat the figures mean:")
    for name, meaning in meanings(results):
        console.print(f"  {name}: {meaning}")
    console.print(f"\nFigures {trained.path / 'evaluation.json'}")


def _metrics(
    text: str | None, recipe: Recipe, registry: Registry, console: Console
) -> tuple[tuple[Metric, ...], bool]:
    """Return the metrics of --metrics, else the recipe's, else all; and whether they were named."""
    from vgx.errors import RecipeError

    if text is not None:
        metrics = _with_metrics(recipe, _yaml(f"[{text}]", "--metrics"), registry).eval.metrics
        return metrics, True
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
    from vgx.recipe.load import with_part

    fields = {"holdout": recipe.eval.holdout, "metrics": metrics}
    return with_part(recipe, "eval", fields, registry)


def _part(recipe: Recipe, field: str, text: str, registry: Registry) -> Any:
    """Return the part that a text names as in a recipe: by its type, or by fields in braces."""
    from vgx.recipe.load import with_part
    from vgx.recipe.yaml import read_setting

    value = read_setting(text, f"--{field}")
    fields = value.plain() if isinstance(value.value, dict) else {"type": value}
    if field == "sampler" and text == recipe.sampler.type:
        return recipe.sampler
    return getattr(with_part(recipe, field, fields, registry), field)


def _dataset(text: str, recipe: Recipe, registry: Registry) -> Any:
    """Return the data set of a recipe, of a folder or file, or as a text describes one."""
    from vgx.files import user_path
    from vgx.recipe.library import find_recipe
    from vgx.recipe.load import load_recipe, with_part
    from vgx.recipe.places import dataset_at

    file = find_recipe(user_path(text))
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return load_recipe(file, (), registry).dataset
    if user_path(text).exists():
        return with_part(recipe, "dataset", dataset_at(text, registry), registry).dataset
    return _part(recipe, "dataset", text, registry)


def _yaml(text: str, option: str) -> Any:
    """Return the YAML value of an option. Raises `RecipeError` unless YAML reads all of it."""
    from vgx.errors import RecipeError
    from vgx.recipe.yaml import read_setting

    node = read_setting(text, option)
    if node.unread:
        raise RecipeError(f"{option}: {node.unread}")
    return node.plain()


COMMANDS = (evaluate,)
