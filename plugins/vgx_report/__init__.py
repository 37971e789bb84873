"""The page of a run, and commands that explain and compare: a plugin like any other.

run_page   the page of a run, written when its training ends and by `vgx report`
run_data   what the files of a run contain, as plain data for its page
panels     what a page shows that must be computed: samples, latents, nearest neighbours
watch      the page of a run while it trains, on a server of this machine: `vgx watch`
overview   the runs of a folder, live: `vgx watch` without a run
curves     the numbers of logs as charts
compare    several runs side by side: `vgx compare` and its page
comparison `vgx.compare`, in Python
family     the runs that a run comes from, and those that come from it
tables     evaluations of several runs side by side
diagram    an experiment as a diagram, in text and in SVG: `vgx explain`
explaining `vgx.explain`, in Python
html       one HTML file with its data, its style and its script, which are in `page/`
commands   the commands
"""

from __future__ import annotations

import io

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `report`, `watch`, `compare` and `explain`."""
    from vgx_report.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)


@vgx.hookimpl
def run_ended(run: vgx.Run) -> None:
    """Write the page of a run, and print where it is."""
    from vgx.console import Console
    from vgx_report.run_page import write_page

    console = Console()
    console.print(f"Report {write_page(run, console)}")


@vgx.hookimpl
def run_evaluated(run: vgx.Run) -> None:
    """Write the page of a run again with its new figures, if there is a page."""
    from vgx.console import Console
    from vgx_report.run_page import write_page

    if (run.path / "report.html").is_file():
        write_page(run, Console(io.StringIO()))
