"""The commands: fork. Each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import (
    PATH,
    common,
    data_option,
    device_option,
    find_trusted,
    set_option,
    trust_option,
)


@click.command()
@click.argument("run", required=False)
@click.option(
    "--at", metavar="STEP", type=click.IntRange(0, 10**12), help="The step of a checkpoint of RUN."
)
@data_option
@set_option
@click.option("--out", metavar="DIR", type=PATH, help="Folder of runs, for the new one.")
@device_option
@trust_option
@common
def fork(
    run: str | None,
    at: int | None,
    data: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    device: str | None,
    trust: bool,
) -> None:
    """Train a new run that goes on from a checkpoint of RUN, perhaps with other settings.

    RUN (the newest by default) is only read. vgx fork 7 --at 5000 --set losses.1.weight=50
    """
    parent = find_trusted(run, trust=trust)  # before anything heavy is imported
    import vgx
    from vgx.cli.sample import save_grid
    from vgx.console import Console
    from vgx.runs import checkpoint
    from vgx.runs.trust import registry_of
    from vgx.training import fork as forking

    if at is None:
        steps = ", ".join(map(str, checkpoint.steps(parent))) or "none"
        raise click.UsageError(f"Give --at STEP. {parent.path} has checkpoints of steps {steps}")
    changed = None
    if overrides or data is not None:
        registry = registry_of(parent)
        changed = vgx.load_recipe(parent.recipe_file, overrides, registry, data, moved=True)
    console = Console()
    new = forking.fork(parent, at, changed, out, device, console)
    console.print(f"Picture {save_grid(new, None, {}, 100, 0, None, device)}")
    console.print(f"Draw more with: vgx sample {new.short}")


COMMANDS = (fork,)
"""The commands, in the order in which help lists them."""
