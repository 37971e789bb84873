"""The command that draws images with a trained run: sample."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli.options import PATH, common, device_option, find_trusted, step_option, trust_option

if TYPE_CHECKING:
    from vgx.runs.directory import Run

LABELS = "labels.csv"  # the classes of images that are saved separately


@click.command()
@click.argument("run", required=False)
@click.option("--sampler", metavar="TYPE", help="Another sampler than the recipe's.")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="A field of the sampler: of=4."
)
@click.option("-n", "n", default=100, show_default=True, type=click.IntRange(1, 10**7))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option("--class", "label", metavar="NAME", help="One class only: its name or number.")
@click.option("--out", metavar="FILE", type=PATH, help="The file: .png, .jpg, .webp or .pdf.")
@click.option("--separate", metavar="DIR", type=PATH, help="A folder for single images instead.")
@click.option("--animate", is_flag=True, help="An animation instead: .webp, .gif or .mp4.")
@click.option("--best", is_flag=True, help="With the best checkpoint by the recipe's eval.best.")
@step_option
@device_option
@trust_option
@common
def sample(
    run: str | None,
    sampler: str | None,
    settings: tuple[str, ...],
    n: int,
    seed: int,
    label: str | None,
    out: Path | None,
    separate: Path | None,
    animate: bool,
    best: bool,
    step: int | None,
    device: str | None,
    trust: bool,
) -> None:
    """Draw a grid of new images from RUN (the newest by default); 100 make 10x10."""
    if separate is not None and animate:
        raise click.UsageError("Leave out --separate or --animate.")
    if separate is not None and out is not None:
        raise click.UsageError("--out names the file of a grid; leave out --separate or --out.")
    if best and step is not None:
        raise click.UsageError("Leave out --best or --step.")
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    from vgx.check.blame import blaming
    from vgx.console import Console
    from vgx.distributed.group import is_first
    from vgx.distributed.processes import begin
    from vgx.files import write_file
    from vgx.images import require_free_folder, save_separately
    from vgx.recipe.load import parse_settings
    from vgx.runs.trust import registry_of
    from vgx.sampling.draw import decoded_by_all, draw_latents, open_sampler

    begin()
    console, fields = Console(quiet=not is_first()), parse_settings(settings)
    with blaming(registry_of(trained)):
        if separate is None:
            path = save_grid(
                trained, sampler, fields, n, seed, out, device, animate, best, label, step
            )
            console.print(f"Picture {path}")
            return
        if is_first():
            require_free_folder(separate, n, [LABELS])
        model, prepared = open_sampler(
            trained, sampler, fields, device, best=best, label=label, step=step
        )
        if is_first() and not prepared.classes:  # then these images have no labels
            require_free_folder(separate, n)
        latents = draw_latents(prepared, n, seed)
        images = decoded_by_all(model, prepared, latents)
        with console.progress("Drawing", n) as advance:
            for more in save_separately(images, separate) if is_first() else map(len, images):
                advance(more, ())
        if latents.labels is not None and is_first():
            names = [prepared.names[label] for label in latents.labels.tolist()]
            write_file(separate / LABELS, _table(names))
    console.print(f"{n:,} images in {separate}")


def _file_name(label: int, names: Sequence[str]) -> str:
    """Return a class as a part of a file's name: by its own name if that is a plain word."""
    plain = re.fullmatch(r"[\w-]{1,40}", names[label])
    return f"class-{names[label]}" if plain else f"label-{label}"


def _table(names: list[str]) -> str:
    """Return the classes of images that are saved separately, as a table."""
    file = io.StringIO()
    rows = [(f"{number:06}.png", name) for number, name in enumerate(names)]
    csv.writer(file, lineterminator="\n").writerows([("file", "label"), *rows])
    return file.getvalue()


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
    label: str | None = None,
    step: int | None = None,
) -> Path:
    """Draw n images from a run; write them as a grid or an animation, and return the file.

    Each process decodes its share of the images, and the first one writes them.
    Raises `RecipeError`, before anything is drawn, for a file that they cannot be written to.
    """
    import torch

    from vgx import images
    from vgx.distributed.group import is_first
    from vgx.sampling.draw import decoded_by_all, draw_latents, open_sampler

    if out is not None:
        (images.require_animation_file if animate else images.require_image_file)(out)
    model, prepared = open_sampler(
        run, sampler, settings, device, best=best, label=label, step=step
    )
    part = prepared.part
    of_class = "" if prepared.label is None else f"-{_file_name(prepared.label, prepared.names)}"
    name = f"{part.type}-{model.step:08}-seed-{seed}{of_class}"
    path = out or run.place("samples", f"{name}.{'webp' if animate else 'png'}")
    if not animate:
        images.require_image_file(path, n, model.recipe.image.shape[1:], part.row_length)
    latents = draw_latents(prepared, n, seed)
    drawn = torch.cat([*decoded_by_all(model, prepared, latents)])  # [n, C, H, W]
    if is_first() and animate:
        images.animate(drawn, path)
    elif is_first():
        images.save_grid(drawn, path, part.row_length, latents.captions)
    return path


COMMANDS = (sample,)
