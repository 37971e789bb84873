"""The command: figure. It imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from vgx.cli.options import PATH, common, device_option, find_trusted, trust_option
from vgx_figures.kinds import FROM_MODELS, KINDS


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--what", metavar="KIND", default=KINDS[0], show_default=True, help=f"{', '.join(KINDS)}."
)
@click.option(
    "--out", metavar="FILE", type=PATH, default=Path("figure.pdf"), show_default=True,
    help="The file: .pdf, .svg or .png.",
)  # fmt: skip
@click.option(
    "--width", metavar="W", default="85mm", show_default=True,
    help="Width of the page in mm, cm, in or pt.",
)  # fmt: skip
@click.option(
    "--label", "labels", metavar="TEXT", multiple=True,
    help="Names the runs of one recipe; once for each recipe.",
)  # fmt: skip
@click.option(
    "--term", "terms", metavar="NAME", multiple=True,
    help="curves, metrics, gradients: only this term or metric; repeatable.",
)  # fmt: skip
@click.option("--smooth", metavar="SHARE", type=float, help="curves: exponential mean, 0 to 0.99.")
@click.option("--by", metavar="AXIS", help="curves: step, images or seconds.")
@click.option("--log", is_flag=True, default=None, help="curves, kl: logarithmic values.")
@click.option("-n", "n", type=click.IntRange(1, 100), help="samples, recon: images in a row.")
@click.option(
    "--sampler", "samplers", metavar="TYPE", multiple=True,
    help="samples: another sampler than the recipe's; repeatable.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="samples: 0 by default.")
@click.option(
    "--row", "rows", metavar="TEXT", multiple=True, help="samples, recon: the name of a row."
)
@click.option(
    "--column", "columns", metavar="TEXT", multiple=True,
    help="samples, recon: the name of a column.",
)  # fmt: skip
@click.option(
    "--data", metavar="PLACE", help="recon, kl, latents: other images than those of the runs."
)
@device_option
@trust_option
@common
def figure(
    runs: tuple[str, ...],
    what: str,
    out: Path,
    width: str,
    labels: tuple[str, ...],
    trust: bool,
    **options: Any,
) -> None:
    """Draw a figure of one or several runs, for a paper.

    Runs of one recipe that differ in train.seed alone are one line with a band:
    vgx figure 7 8 9 --what curves --out curves.pdf
    """
    if what in FROM_MODELS:
        for run in runs:
            find_trusted(run, trust=trust)  # before anything heavy is imported
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
