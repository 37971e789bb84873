"""Commands that explain a recipe and look at several runs: compare, explain, list."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from vgx.cli import common
from vgx.cli.train import device_option, plugin_option, set_option

if TYPE_CHECKING:
    from vgx.console import Voice
    from vgx.report.diagram import Explanation


@click.command(name="list")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of runs.")
@common
def list_runs(out: Path | None) -> None:
    """List the runs, newest first: state, steps, age, size, best metric."""
    from vgx.console import Voice
    from vgx.data.cache import format_bytes
    from vgx.recipe.yaml import short, visible
    from vgx.runs import directory as rundir
    from vgx.runs import summary as listing

    voice, now = Voice(), time.time()
    found = [listing.summarize(run) for run in reversed(rundir.every(out))]
    if not found:
        voice.say(f"{rundir.runs_dir(out)}: no runs here yet; make one with: vgx run RECIPE")
        return
    rows = [
        (
            visible(run.name),
            short(visible(run.state)),
            f"{run.step:,}" + (f" of {run.of:,}" if run.of else ""),
            listing.age(now - run.since),
            format_bytes(run.bytes),
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
    from vgx.console import Voice
    from vgx.files import write_file
    from vgx.report import diagram as drawing

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


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path),
    help="Write a page too: curves and pictures, in one HTML file.",
)  # fmt: skip
@common
def compare(runs: tuple[str, ...], out: Path | None) -> None:
    """Lay runs beside each other: recipes, figures and, with --out, curves and pictures."""
    from vgx.console import Voice
    from vgx.recipe.yaml import visible
    from vgx.report import compare as comparing
    from vgx.runs import directory as rundir

    found = [rundir.find(run) for run in runs]
    if len({run.path.resolve() for run in found}) < max(len(found), 2):
        raise click.UsageError("Give two runs or more, each once.")
    voice = Voice()
    shown = [comparing.read(run) for run in found]
    names = [visible(run.name) for run in shown]
    for notice in comparing.notices(shown):
        voice.warn(visible(notice))
    voice.table(("", *names), [tuple(map(visible, row)) for row in comparing.facts(shown)])
    rows = comparing.differences([run.recipe for run in shown])
    voice.say("\nWhat their recipes say differently:" if rows else "\nTheir recipes are the same.")
    if rows:
        voice.table(("field", *names), [tuple(map(visible, row)) for row in rows])
    for side in comparing.sides(shown):
        voice.say(f"\n{side.title}" + (f" ({side.apart})" if side.apart else ""))
        voice.table(
            ("figure", *names), [_marked(row.name, row.cells, row.best) for row in side.rows]
        )
    if any(run.said for run in shown):
        voice.say(f"\n* {comparing.MARKED}")
    if out is not None:
        comparing.write(shown, out)
        voice.say(f"Page {out}")


def _marked(name: str, cells: list[str], best: int | None) -> tuple[str, ...]:
    return (name, *(f"{cell} *" if i == best else cell for i, cell in enumerate(cells)))


def _of_recipe(
    file: Path,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    device: str | None,
    voice: Voice,
) -> Explanation:
    from dataclasses import asdict

    from vgx.check import trials as tuning
    from vgx.parts.registry import discover
    from vgx.recipe.load import load_recipe
    from vgx.report import diagram as drawing
    from vgx.training import session as training

    registry = discover(plugins)
    recipe = load_recipe(file, overrides, registry)
    engine, findings = training.looked_at(recipe, registry, device, voice)
    seconds, count = tuning.step_time(engine, findings.forward)
    whole = seconds * recipe.train.batch / count
    pace = (
        f"Time: about {drawing.in_time(whole * engine.steps)} for {engine.steps:,} steps on "
        f"{engine.device}: {drawing.in_time(whole)} a step, measured on {tuning.STEPS} steps of "
        f"{count:,} random pictures; drawing, saving and evaluation come on top."
    )
    return drawing.explain(recipe, asdict(findings), engine.steps, pace)


def _of_run(what: str | None) -> Explanation:
    from vgx.parts.registry import discover
    from vgx.recipe.load import load_recipe
    from vgx.report import diagram as drawing
    from vgx.runs import directory as rundir

    run = rundir.find(what)
    return drawing.of_run(run, load_recipe(run.recipe_file, (), discover(run.plugin_files)))


COMMANDS = (compare, explain, list_runs)
