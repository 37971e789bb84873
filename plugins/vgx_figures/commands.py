"""The command: figure. It imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from vgx.cli.options import PATH, common


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--what", default="curves", show_default=True, metavar="KIND", help="curves.")
@click.option(
    "--out", metavar="FILE", type=PATH, default=Path("figure.pdf"), show_default=True,
    help="The file: .pdf, .svg or .png.",
)  # fmt: skip
@click.option(
    "--width", metavar="W", default="85mm", show_default=True,
    help="Of the page, in mm, cm, in or pt: the width of a column.",
)  # fmt: skip
@click.option(
    "--label", "labels", metavar="TEXT", multiple=True,
    help="Names the runs of one recipe; once for each recipe.",
)  # fmt: skip
@click.option("--term", "terms", metavar="NAME", multiple=True, help="Draw only this; repeatable.")
@click.option("--smooth", metavar="SHARE", type=float, help="Exponential mean: 0 to 0.99.")
@click.option("--by", metavar="AXIS", help="step, images or seconds.")
@click.option("--log", is_flag=True, default=None, help="Logarithmic values.")
@common
def figure(
    runs: tuple[str, ...], what: str, out: Path, width: str, labels: tuple[str, ...], **options: Any
) -> None:
    """Draw a figure of one or several runs, for a paper.

    Runs of one recipe that differ in train.seed alone are one line with a band:
    vgx figure 7 8 9 --what curves --out curves.pdf
    """
    from vgx.console import Console
    from vgx_figures import plot
    from vgx_figures.drawing import require_figure_file

    require_figure_file(out)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    made = plot(runs, what, width=width, labels=labels, **given)
    console = Console()
    console.print(made.caption)
    console.print(f"Figure {made.save(out)}")


COMMANDS = (figure,)
