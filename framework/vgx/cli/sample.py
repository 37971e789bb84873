"""The command that draws images with a trained run: sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli.options import PATH, common, device_option, find_trusted, trust_option

if TYPE_CHECKING:
    from vgx.runs.directory import Run


@click.command()
@click.argument("run", required=False)
@click.option("--sampler", metavar="TYPE", help="Another sampler than the recipe's.")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="A field of the sampler: of=4."
)
@click.option("-n", "n", default=100, show_default=True, type=click.IntRange(1, 10**7))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option("--out", metavar="FILE", type=PATH, help="The file: .png, .jpg, .webp or .pdf.")
@click.option("--separate", metavar="DIR", type=PATH, help="A folder for single images instead.")
@click.option("--animate", is_flag=True, help="An animation instead: .webp, .gif or .mp4.")
@click.option("--best", is_flag=True, help="With the best checkpoint by the recipe's eval.best.")
@device_option
@trust_option
@common
def sample(
    run: str | None,
    sampler: str | None,
    settings: tuple[str, ...],
    n: int,
    seed: int,
    out: Path | None,
    separate: Path | None,
    animate: bool,
    best: bool,
    device: str | None,
    trust: bool,
) -> None:
    """Draw a grid of new images from RUN (the newest by default); 100 make 10x10."""
    if separate is not None and animate:
        raise click.UsageError("Leave out --separate or --animate.")
    if separate is not None and out is not None:
        raise click.UsageError("--out names the file of a grid; leave out --separate or --out.")
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.check.blame import blaming
    from vgx.console import Console
    from vgx.images import require_free_folder, save_separately
    from vgx.recipe.load import parse_settings
    from vgx.runs.trust import registry_of
    from vgx.sampling.draw import draw, open_sampler

    console, fields = Console(), parse_settings(settings)
    with blaming(registry_of(trained)):
        if separate is None:
            path = save_grid(trained, sampler, fields, n, seed, out, device, animate, best)
            console.print(f"Picture {path}")
            return
        require_free_folder(separate, n)
        model, prepared = open_sampler(trained, sampler, fields, device, best=best)
        with console.progress("Drawing", n) as advance:
            for more in save_separately(draw(model, prepared, n, seed), separate):
                advance(more, ())
    console.print(f"{n:,} images in {separate}")


def save_grid(
    run: Run,
    sampler: str | None,
    settings: dict[str, Any],
    n: int,
    seed: int,
    out: Path | None,
    device: str | None,
    animate: bool = False,
    best: bool = False,
) -> Path:
    """Draw n images from a run; write them as a grid or an animation, and return the file.

    Raises `RecipeError`, before anything is drawn, for a file that they cannot be written to.
    """
    from vgx import images
    from vgx.sampling.draw import draw_rows, open_sampler

    if out is not None:
        (images.require_animation_file if animate else images.require_image_file)(out)
    model, prepared = open_sampler(run, sampler, settings, device, best=best)
    part = prepared.part
    name = f"{part.type}-{model.step:08}-seed-{seed}"
    path = out or run.place("samples", f"{name}.{'webp' if animate else 'png'}")
    if not animate:
        images.require_image_file(path, n, model.recipe.image.shape[1:], part.row_length)
    drawn, captions = draw_rows(model, prepared, n, seed)
    if animate:
        images.animate(drawn, path)
    else:
        images.save_grid(drawn, path, part.row_length, captions)
    return path


COMMANDS = (sample,)
