"""The commands: report, watch, compare, explain. Each imports what it needs when it is called."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import rich_click as click

from vgx.cli.options import (
    PATH,
    common,
    data_option,
    device_option,
    find_trusted,
    plugin_option,
    runs_option,
    set_option,
    trust_option,
)


@click.command()
@click.argument("run", required=False)
@click.option("--out", metavar="FILE", type=PATH, help="The page's file.")
@device_option
@trust_option
@common
def report(run: str | None, out: Path | None, device: str | None, trust: bool) -> None:
    """Write the page of RUN (the newest by default): one HTML file that needs no network."""
    found = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.console import Console
    from vgx_report.run_page import write_page

    console = Console()
    console.print(f"Report {write_page(found, console, device, out)}")


@click.command()
@click.argument("run", required=False)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0,
    help="The port on this machine; by default a free one.",
)  # fmt: skip
@runs_option
@trust_option
@common
def watch(run: str | None, port: int, out: Path | None, trust: bool) -> None:
    """Show the page of RUN in a browser, live while it trains; without RUN, a list of all runs.

    A server on this machine gives it to browsers on this machine alone, until Ctrl-C.
    """
    if run is None and trust:
        raise click.UsageError("Name the run whose plugin files you trust: vgx watch RUN")
    found = None if run is None else find_trusted(run, out, trust=trust)
    import vgx
    from vgx.console import Console
    from vgx.runs.directory import runs_dir
    from vgx.runs.trust import registry_of
    from vgx_report.overview import Overview
    from vgx_report.watch import Watched, server

    shown: Overview | Watched = Overview(out)
    if found is not None:
        shown = Watched(found, vgx.load_recipe(found.recipe_file, (), registry_of(found)))
    try:
        serving, address = server(shown, port)
    except OSError as error:
        message = f"port {port}: {error.strerror}; leave out --port for a free one"
        raise click.UsageError(message) from None
    console = Console()
    console.print(f"Watching {found.path if found else runs_dir(out)}: {address}")
    console.print("Ctrl-C ends this page. No training depends on it.")
    with serving, suppress(KeyboardInterrupt):
        serving.serve_forever()


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option(
    "--out", metavar="FILE", type=PATH,
    help="Write a page too: curves and images, in one HTML file.",
)  # fmt: skip
@common
def compare(runs: tuple[str, ...], out: Path | None) -> None:
    """Show runs side by side: recipes, metrics and, with --out, curves and images."""
    from vgx.console import Console
    from vgx.files import require_ending
    from vgx.runs.directory import find
    from vgx_report import compare as comparison
    from vgx_report.comparison import marked
    from vgx_report.html import PAGE

    if out is not None:
        require_ending(out, "a page", PAGE)
    directories = [find(run) for run in runs]
    if len({run.path.resolve() for run in directories}) < max(len(directories), 2):
        raise click.UsageError("Give two runs or more, each once.")
    console = Console()
    compared = [comparison.read(run) for run in directories]
    names = [run.name for run in compared]
    for notice in comparison.notices(compared):
        console.warn(notice)
    console.table(("", *names), comparison.facts(compared))
    rows = comparison.differences([run.recipe for run in compared])
    console.print("\nWhere their recipes differ:" if rows else "\nTheir recipes are the same.")
    if rows:
        console.table(("field", *names), rows)
    for table in comparison.evaluation_tables(compared):
        console.print(f"\n{table.title}" + (f" ({table.warning})" if table.warning else ""))
        console.table(("figure", *names), [marked(row) for row in table.rows])
    if any(run.evaluation for run in compared):
        console.print(f"\n* {comparison.MARKED}")
    if out is not None:
        comparison.write(compared, out)
        console.print(f"Page {out}")


@click.command()
@click.argument("what", metavar="[RECIPE|RUN]", required=False)
@data_option
@set_option
@plugin_option
@click.option("--svg", metavar="FILE", type=PATH, help="Write it as SVG too.")
@device_option
@common
def explain(
    what: str | None,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    svg: Path | None,
    device: str | None,
) -> None:
    """Draw an experiment: networks, which term moves which, weights, memory, time.

    For a RECIPE a few steps are measured. A RUN (the newest by default) is drawn from its files.
    The argument is a file, else a run, else the name of a recipe that comes with vgx. With options
    that change a recipe it is never a run.
    """
    import vgx
    from vgx.console import Console
    from vgx.files import require_ending, write_file
    from vgx.runs.directory import find
    from vgx_report import diagram, explaining

    if svg is not None:
        require_ending(svg, "a drawing", [".svg"])
    console = Console()
    changed = bool(data or overrides or plugins or device)
    if explaining.is_recipe(what, changed=changed):
        assert what is not None
        registry = vgx.discover(plugins)
        recipe = vgx.load_recipe(what, overrides, registry, data)
        explanation = explaining.of_recipe(recipe, registry, device, console)
    elif changed:
        raise click.UsageError("A run cannot be changed; leave out all options but --svg.")
    else:
        explanation = diagram.of_run(find(what))
    console.print(f"{explanation.name}\n")
    for line in diagram.chain(explanation):
        console.print(line)
    console.print(f"\n{explaining.NORMS}")
    console.table(*diagram.table(explanation))
    console.print("")
    for line in (*explanation.movers, *explanation.costs, *explanation.notes):
        console.print(line)
    if svg is not None:
        write_file(svg, diagram.svg(explanation))
        console.print(f"Drawing {svg}")


COMMANDS = (report, watch, compare, explain)
