"""Commands that look at a run: report."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli import common
from vgx.cli.train import device_option


@click.command()
@click.argument("run", required=False)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="The page's file.")
@device_option
@common
def report(run: str | None, out: Path | None, device: str | None) -> None:
    """Write the page of RUN (the newest by default): one file that opens without a network."""
    from vgx.console import Voice
    from vgx.recipe.load import load_recipe
    from vgx.report import run_page as pages
    from vgx.runs import directory as rundir
    from vgx.sampling.model import registry_of
    from vgx.training.session import pick_device

    voice, found, chosen = Voice(), rundir.find(run), pick_device(device)
    registry = registry_of(found)
    recipe = load_recipe(found.recipe_file, (), registry)
    store = pages.pictures(found, recipe, voice)
    voice.say(f"Report {pages.write(found, registry, store, chosen, out)}")


COMMANDS = (report,)
