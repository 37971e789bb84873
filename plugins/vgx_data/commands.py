"""The commands. Each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import PATH, common, data_option, plugin_option, set_option


@click.command()
@click.argument("recipe", type=PATH)
@data_option
@set_option
@plugin_option
@click.option(
    "--out", metavar="FILE", type=PATH,
    help="The file: .png, .jpg, .webp or .pdf; by default look-NAME.png.",
)  # fmt: skip
@common
def look(
    recipe: Path,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
) -> None:
    """Show up to 64 images of RECIPE's data set as the networks get them.

    RECIPE is a file, or the name of a recipe that comes with vgx: vgx look quickstart
    """
    import vgx
    from vgx.console import Console
    from vgx_data.look import write_sheet

    registry = vgx.discover(plugins)
    loaded = vgx.load_recipe(recipe, overrides, registry, data)
    console = Console()
    path = write_sheet(loaded, registry, console, out)
    console.print(f"Picture {path}")


COMMANDS = (look,)
