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
@click.option(
    "--augmented", is_flag=True,
    help="Show up to 8 images instead, each in a row with 8 draws of the augmentations.",
)  # fmt: skip
@common
def look(
    recipe: Path,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    augmented: bool,
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
    path = write_sheet(loaded, registry, console, out, augmented=augmented)
    console.print(f"Picture {path}")


@click.command()
@click.argument("place", metavar="PLACE")
@click.argument("out", metavar="OUT", type=PATH)
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Take only the first N images.")
@click.option(
    "--rows-per-group", "rows", metavar="N", type=click.IntRange(1), default=1000,
    show_default=True, help="Images that are read together; fewer when they are large.",
)  # fmt: skip
@click.option(
    "--shard-size", "shard", metavar="SIZE", default="500MB", show_default=True,
    help="Size of a file, about: 500MB, 2GB.",
)  # fmt: skip
@set_option
@plugin_option
@common
def pack(
    place: str,
    out: Path,
    limit: int | None,
    rows: int,
    shard: str,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
) -> None:
    """Write the images of PLACE as parquet files in the folder OUT, in the hub's layout.

    PLACE is a folder of images or another place that --data takes, or a recipe, whose data set and
    labels are then used. Train on the result without copying it to the cache:
    vgx run RECIPE --data OUT --set dataset.stream=true
    """
    import vgx
    from vgx.console import Console
    from vgx_data.pack import Sizes, pack_images, recipe_of

    registry = vgx.discover(plugins)
    recipe = recipe_of(place, overrides, registry)
    console = Console()
    console.print(pack_images(recipe, registry, out, Sizes.of(rows, shard), console, limit))


COMMANDS = (look, pack)
