"""The command that evaluates runs: eval."""

from __future__ import annotations

import rich_click as click

from vgx.cli.options import common, device_option, find_trusted, step_option, trust_option


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
    from vgx.distributed.group import is_first
    from vgx.distributed.processes import begin
    from vgx.engine.build import pick_device
    from vgx.evaluation.choice import settings_for
    from vgx.evaluation.evaluate import evaluate_run
    from vgx.evaluation.tables import meanings, spread_of, tables
    from vgx.recipe.load import load_recipe
    from vgx.runs.trust import registry_of

    begin()
    console = Console(quiet=not is_first())
    registry = registry_of(trained)
    recipe = load_recipe(trained.recipe_file, (), registry)
    settings = settings_for(
        recipe, registry, console, metrics, against, samplers, n, seeds, best, step
    )
    with blaming(registry):
        results = evaluate_run(trained, recipe, settings, registry, pick_device(device), console)
    for notice in results["notices"]:
        console.warn(notice)
    console.print(f"{trained.path}, step {results['step']:,}; {spread_of(seeds)}")
    for title, header, rows in tables(results):
        console.print(f"\n{title}")
        console.table(header, rows)
    console.print("\nWhat the figures mean:")
    for name, meaning in meanings(results):
        console.print(f"  {name}: {meaning}")
    console.print(f"\nFigures {trained.path / 'evaluation.json'}")


COMMANDS = (evaluate,)
