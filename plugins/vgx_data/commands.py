"""The commands. Each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import PATH, common, plugin_option, set_option


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
    packed = pack_images(recipe, registry, out, Sizes.of(rows, shard), Console(), limit)
    click.echo(packed)


COMMANDS = (pack,)
