"""Commands that train: run, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from vgx.cli.options import (
    PATH,
    common,
    data_option,
    device_option,
    find_trusted,
    in_processes,
    plugin_option,
    processes_option,
    runs_option,
    set_option,
    trust_option,
)
from vgx.cli.sample import save_grid

if TYPE_CHECKING:
    from vgx.console import Console
    from vgx.recipe.model import Recipe
    from vgx.runs.directory import Run


@click.command()
@click.argument("recipe", type=PATH, required=False)
@data_option
@set_option
@plugin_option
@runs_option
@click.option("--resume", "resumed", metavar="RUN", help="Go on with this run instead.")
@click.option("--profile", is_flag=True, help="Show what takes the time of a few early steps.")
@device_option
@processes_option
@trust_option
@common
def run(
    recipe: Path | None,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    resumed: str | None,
    profile: bool,
    device: str | None,
    processes: int | None,
    trust: bool,
) -> None:
    """Check RECIPE, train it, and draw images with it.

    RECIPE is a file, or the name of a recipe that comes with vgx: vgx run quickstart
    """
    if resumed is None and recipe is None:
        raise click.UsageError("Name a RECIPE, or a run to go on with: --resume RUN.")
    if resumed is not None and profile:
        raise click.UsageError("A profile is made of a new run; leave out --resume or --profile.")
    if resumed is not None and plugins:
        raise click.UsageError("A resumed run uses its own copies of plugins; leave out --plugin.")
    if resumed is None and trust:
        raise click.UsageError("--trust-plugins is for the plugin files of a run: --resume RUN.")
    if processes and resumed is not None:
        find_trusted(resumed, out, trust=trust)  # asks before there are several processes
    in_processes(processes)
    from vgx.console import Console
    from vgx.distributed.group import is_first
    from vgx.distributed.processes import begin
    from vgx.parts.registry import discover
    from vgx.recipe.library import find_recipe
    from vgx.recipe.load import load_recipe
    from vgx.runs.trust import registry_of
    from vgx.training import session

    begin()
    console = Console(quiet=not is_first())
    if resumed is None:
        assert recipe is not None
        registry = discover(plugins)
        loaded = load_recipe(recipe, overrides, registry, data)
        folder = find_recipe(recipe).parent
        ended = session.run(
            loaded, out, device, plugins, registry, console, folder, profile=profile
        )
    else:
        stopped = find_trusted(resumed, out, trust=trust)
        changed = None
        if recipe is not None or overrides or data is not None:
            file, registry = recipe or stopped.recipe_file, registry_of(stopped)
            changed = load_recipe(file, overrides, registry, data, moved=True)
        _go_on(stopped, changed, device, console)
        return
    _finish(ended, device, console)


@click.command()
@click.argument("run", required=False)
@click.option("--data", metavar="PLACE", help="Where its images lie now, if they were moved.")
@click.option("--verify", is_flag=True, help="First repeat the last steps, and compare.")
@click.option(
    "--force-unlock", is_flag=True, help="The process that trained it on another machine has ended."
)
@device_option
@processes_option
@trust_option
@common
def resume(
    run: str | None,
    data: str | None,
    verify: bool,
    force_unlock: bool,
    device: str | None,
    processes: int | None,
    trust: bool,
) -> None:
    """Go on with RUN (a path, number or name; the newest by default).

    With other settings: vgx run --resume RUN --set train.steps=1000
    """
    if processes:
        find_trusted(run, trust=trust)  # asks before there are several processes
    in_processes(processes)
    from vgx.console import Console
    from vgx.distributed.group import is_first
    from vgx.distributed.processes import begin
    from vgx.recipe.load import load_recipe
    from vgx.runs.trust import registry_of
    from vgx.training import environment
    from vgx.training import verify as verification

    begin()
    console = Console(quiet=not is_first())
    stopped, changed = find_trusted(run, trust=trust), None
    if force_unlock and is_first():
        stopped.unlock()
    if data is not None:
        changed = load_recipe(stopped.recipe_file, (), registry_of(stopped), data, moved=True)
    if verify:
        environment.one_process("vgx resume --verify")
        verification.verify(stopped, device, console, changed)
    _go_on(stopped, changed, device, console)


def _go_on(stopped: Run, changed: Recipe | None, device: str | None, console: Console) -> None:
    """Resume a run; draw images with it unless it was done before."""
    from vgx.training import session

    if session.resume(stopped, changed, device, console) is not None:
        _finish(stopped, device, console)


def _finish(run: Run, device: str | None, console: Console) -> None:
    """Draw a grid with the recipe's sampler, and print how to draw more: the first process does."""
    from vgx.distributed.group import is_first
    from vgx.distributed.processes import end

    first = is_first()
    end()
    if not first:
        return
    path = save_grid(run, None, {}, 100, 0, None, device)
    console.print(f"Picture {path}")
    console.print(f"Draw more with: vgx sample {run.short}")


COMMANDS = (run, resume)
