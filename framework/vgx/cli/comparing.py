"""Commands that explain a recipe and look at several runs: explain, list."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from vgx.cli import common
from vgx.cli.running import device_option, plugin_option, set_option

if TYPE_CHECKING:
    from vgx.explain import Explanation
    from vgx.voice import Voice


@click.command(name="list")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of runs.")
@common
def list_runs(out: Path | None) -> None:
    """List the runs, newest first: state, steps, age, size, best metric."""
    from vgx import listing, rundir
    from vgx.cache import in_words
    from vgx.limits import short, visible
    from vgx.voice import Voice

    voice, now = Voice(), time.time()
    found = [listing.entry(run) for run in reversed(rundir.every(out))]
    if not found:
        voice.say(f"{rundir.runs_dir(out)}: no runs here yet; make one with: vgx run RECIPE")
        return
    rows = [
        (
            visible(run.name),
            short(visible(run.state)),
            f"{run.step:,}" + (f" of {run.of:,}" if run.of else ""),
            listing.age(now - run.since),
            in_words(run.bytes),
            visible(run.best),
        )
        for run in found
    ]
    voice.table(("run", "state", "step", "age", "size", "best metric"), rows)


@click.command()
@click.argument("what", metavar="[RECIPE|RUN]", required=False)
@set_option
@plugin_option
@click.option("--svg", metavar="FILE", type=click.Path(path_type=Path), help="Draw it there too.")
@device_option
@common
def explain(
    what: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    svg: Path | None,
    device: str | None,
) -> None:
    """Draw an experiment: networks, which term moves which, weights, memory, time.

    Of a RECIPE a few steps are measured; of a RUN (the newest by default) its own files speak.
    """
    from vgx import explain as drawing
    from vgx.rundir import write_file
    from vgx.voice import Voice

    voice = Voice()
    if what is not None and Path(what).is_file():
        shown = _of_recipe(Path(what), overrides, plugins, device, voice)
    elif overrides or plugins or device:
        raise click.UsageError("A run is what it is; leave out --set, --plugin and --device.")
    else:
        shown = _of_run(what)
    voice.say(f"{shown.name}\n")
    for line in drawing.chain(shown):
        voice.say(line)
    voice.say("\nGradient norm of each term in each network before the first step:")
    voice.table(*drawing.table(shown))
    voice.say("")
    for line in (*shown.movers, *shown.costs, *shown.notes):
        voice.say(line)
    if svg is not None:
        write_file(svg, drawing.svg(shown))
        voice.say(f"Drawing {svg}")


def _of_recipe(
    file: Path,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    device: str | None,
    voice: Voice,
) -> Explanation:
    from dataclasses import asdict

    from vgx import explain as drawing
    from vgx import training, tuning
    from vgx.recipe import load_recipe
    from vgx.registry import discover

    registry = discover(plugins)
    recipe = load_recipe(file, overrides, registry)
    engine, findings = training.looked_at(recipe, registry, device, voice)
    seconds, count = tuning.pace(engine, findings.forward)
    whole = seconds * recipe.train.batch / count
    pace = (
        f"Time: about {drawing.in_time(whole * engine.steps)} for {engine.steps:,} steps on "
        f"{engine.device}: {drawing.in_time(whole)} a step, measured on {tuning.STEPS} steps of "
        f"{count:,} random pictures; drawing, saving and evaluation come on top."
    )
    return drawing.explain(recipe, asdict(findings), engine.steps, pace)


def _of_run(what: str | None) -> Explanation:
    import json

    from vgx import explain as drawing
    from vgx import listing, rundir
    from vgx.errors import StorageError
    from vgx.recipe import load_recipe
    from vgx.registry import discover

    run = rundir.find(what)
    recipe = load_recipe(run.recipe_file, (), discover(run.plugin_files))
    file = run.path / "audit.json"
    try:
        audit = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{file}: {error}") from None
    lines = [line for line in run.read_log() if line.get("losses")]
    steps = listing.entry(run).of or recipe.train.steps or 1
    pace = ""
    if lines:
        line = lines[-1]
        pace = (
            f"Time: {drawing.in_time(line['seconds'])} for the first {line['step']:,} of "
            f"{steps:,} steps, as its log says."
        )
    return drawing.explain(recipe, audit, steps, pace)


COMMANDS = (explain, list_runs)
