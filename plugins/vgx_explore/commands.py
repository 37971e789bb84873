"""The command `explore`. It imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import PATH, common, find_trusted, trust_option


@click.command()
@click.argument("run", required=False)
@click.option(
    "--out", metavar="FILE", type=PATH,
    help="The page's file; by default explore.html in the run.",
)  # fmt: skip
@click.option(
    "--stored", is_flag=True,
    help="Put latents of training images in the page. They are derived from these images, which "
    "whoever has the page can reconstruct.",
)  # fmt: skip
@click.option(
    "--engine", metavar="FILE", type=PATH,
    help="onnxruntime-web as npm packs it, for a machine without a network.",
)  # fmt: skip
@trust_option
@common
def explore(
    run: str | None, out: Path | None, stored: bool, engine: Path | None, trust: bool
) -> None:
    """Make a page to play with RUN (the newest by default): one HTML file that needs no network.

    Mix three faces with a point in a triangle, change them with sliders, reconstruct a photo, save
    images and latents.
    """
    found = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.console import Console
    from vgx_explore.run_page import write_page

    console = Console()
    path, facts = write_page(found, out, stored=stored, archive=engine)
    for fact in facts:
        console.print(fact)
    console.print(f"Page {path}")


COMMANDS: tuple[click.Command, ...] = (explore,)
