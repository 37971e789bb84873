"""The commands: sweep, ablate. Each imports what it needs when it is called."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import rich_click as click

from vgx.cli.options import (
    PATH,
    C,
    common,
    data_option,
    device_option,
    plugin_option,
    runs_option,
    set_option,
)

_OPTIONS = (
    click.option(
        "--by", metavar="METRIC", help="What is measured and compared; by default eval.best."
    ),
    click.option(
        "--name", metavar="NAME", help="The name of the study; by default that of the recipe."
    ),
    click.option(
        "--storage", "server", metavar="URL", envvar="VGX_STORAGE",
        help="postgresql://USER@HOST/DATABASE, for several machines; by default a file in sweeps/.",
    ),
    click.option(
        "--workers", metavar="N", type=click.IntRange(1, 256), default=1, show_default=True,
        help="Processes on this machine, which share its cores.",
    ),
    data_option, set_option, plugin_option, runs_option, device_option, common,
)  # fmt: skip


def study_options(command: C) -> C:
    """Add the options that both commands take."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("recipe", type=PATH, required=False)
@click.option(
    "--over", metavar="FIELD=VALUES", multiple=True,
    help="Vary a field: FIELD=a,b,c, FIELD=low:high or FIELD=low:high:log.",
)  # fmt: skip
@click.option(
    "--trials", metavar="N", type=click.IntRange(1, 10_000),
    help="How many points to try; without it, all of a grid.",
)  # fmt: skip
@click.option(
    "--seeds", metavar="N", type=click.IntRange(1, 100), show_default="1",
    help="Runs of each point, with other seeds.",
)  # fmt: skip
@click.option("--search", type=click.Choice(["tpe", "random"]), help="How --trials chooses points.")
@click.option(
    "--prune", type=click.Choice(["halving", "hyperband"]),
    help="End trials early that measure worse than others.",
)  # fmt: skip
@click.option("--join", "joined", metavar="STUDY", help="Be one more worker of a study.")
@click.option(
    "--show", "shown", metavar="STUDY", is_flag=False, flag_value="",
    help="Show what came of a study so far; by default the newest.",
)  # fmt: skip
@click.option("--worker", is_flag=True, hidden=True, help="One of several.")
@click.option("--folder", type=PATH, hidden=True, help="Of the recipe, for a worker.")
@study_options
def sweep(
    recipe: Path | None,
    over: tuple[str, ...],
    trials: int | None,
    seeds: int | None,
    by: str | None,
    search: str | None,
    prune: str | None,
    name: str | None,
    server: str | None,
    workers: int,
    joined: str | None,
    shown: str | None,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    device: str | None,
    worker: bool,
    folder: Path | None,
) -> None:
    """Train RECIPE with many values of some fields, and find the best.

    vgx sweep vae --over losses.1.weight=0.1:10:log --trials 20 --by psnr
    """
    if sum(given is not None for given in (recipe, joined, shown)) != 1:
        raise click.UsageError("Name a RECIPE to vary, or a study: --join STUDY or --show STUDY.")
    if recipe is None and (over or overrides or trials or seeds or by or search or prune or name):
        raise click.UsageError(
            "A study keeps its recipe and its plan; leave out what changes them."
        )
    if server and shown == "":
        raise click.UsageError("Which study of the server? Name it: --show STUDY.")
    import vgx
    from vgx.recipe.library import find_recipe
    from vgx_sweep import running, storage, training

    storage.require_optuna()
    folder = find_recipe(recipe).parent if recipe else folder
    machine = training.Machine(out, device, plugins, vgx.discover(plugins), data, folder=folder)
    if shown is not None:
        with closing(storage.join(shown or running.newest(), server)) as study:
            running.show(study, machine)
        return
    if joined is not None:
        study = storage.join(joined, server)
    else:
        assert recipe is not None
        base = vgx.load_recipe(recipe, overrides, machine.registry, data)
        plan = running.planned(base, machine.registry, over, trials, seeds or 1, by, search, prune)
        study = storage.create(name or running.unused(base.name), plan, server)
    with closing(study):
        running.go(study, machine, workers, worker=worker)


@click.command()
@click.argument("recipe", type=PATH)
@click.option(
    "--seeds", metavar="N", type=click.IntRange(1, 100), default=3, show_default=True,
    help="Runs of each variant, with other seeds.",
)  # fmt: skip
@study_options
def ablate(
    recipe: Path,
    seeds: int,
    by: str | None,
    name: str | None,
    server: str | None,
    workers: int,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    device: str | None,
) -> None:
    """Train RECIPE without each loss, augmentation and the average, and show the differences.

    Each is left out once, with the same seeds: vgx ablate larsen_vaegan --by psnr
    """
    import vgx
    from vgx.recipe.library import find_recipe
    from vgx_sweep import running, storage, training

    storage.require_optuna()
    folder = find_recipe(recipe).parent
    machine = training.Machine(out, device, plugins, vgx.discover(plugins), data, folder=folder)
    base = vgx.load_recipe(recipe, overrides, machine.registry, data)
    plan = running.planned_ablation(base, machine, seeds, by)
    study = storage.create(name or running.unused(f"{base.name}-ablation"), plan, server)
    with closing(study):
        running.go(study, machine, workers)


COMMANDS = (sweep, ablate)
"""The commands, in the order in which help lists them."""
