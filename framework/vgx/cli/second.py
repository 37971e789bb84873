"""Commands of the second stage: fit, encode."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import PATH, common, device_option, find_trusted, set_option, trust_option
from vgx.cli.sample import save_grid


@click.command()
@click.argument("run", required=False)
@click.option("--data", metavar="PLACE", help="Where its images lie now, if they were moved.")
@set_option
@device_option
@trust_option
@common
def fit(
    run: str | None, data: str | None, overrides: tuple[str, ...], device: str | None, trust: bool
) -> None:
    """Train the prior of RUN (the newest by default), or go on with it.

    The run's encoder encodes its images anew, and a model learns these codes:
    vgx fit 7 --set prior=transformer --set sampler=learned-prior
    """
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.console import Console
    from vgx.second import running

    console = Console()
    recipe = running.fit_run(trained, overrides, data, device, console)
    if recipe.sampler.needs_prior:
        console.print(f"Picture {save_grid(trained, None, {}, 100, 0, None, device)}")
        console.print(f"Draw more with: vgx sample {trained.short}")
    else:
        console.print(f"Draw with it: vgx sample {trained.short} --sampler learned-prior")


@click.command()
@click.argument("run")
@click.argument("data", metavar="DATA")
@click.argument("out", type=PATH)
@click.option("--best", is_flag=True, help="With the best checkpoint by the recipe's eval.best.")
@device_option
@trust_option
@common
def encode(run: str, data: str, out: Path, best: bool, device: str | None, trust: bool) -> None:
    """Write the latents of all images of DATA as the new folder OUT, for a model of your own.

    DATA is a folder, a parquet file, OWNER/NAME, or a data set in braces, as in a recipe.
    vgx.load_latents(OUT) reads the latents in Python.
    """
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.console import Console
    from vgx.second import running

    console = Console()
    count = running.encode(trained, data, out, device, console, best=best)
    console.print(f"Latents of {count:,} images in {out}")


COMMANDS = (fit, encode)
