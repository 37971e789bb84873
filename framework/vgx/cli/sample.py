"""The command that draws images with a trained run: sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli.options import common, device_option

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
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="The grid's file.")
@click.option(
    "--separate", metavar="DIR", type=click.Path(path_type=Path), help="Single images instead."
)
@click.option("--animate", is_flag=True, help="One after another instead, as an animated WebP.")
@click.option("--best", is_flag=True, help="With the best checkpoint by the recipe's eval.best.")
@device_option
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
) -> None:
    """Draw a grid of new images from RUN (the newest by default); 100 make 10x10."""
    if separate is not None and animate:
        raise click.UsageError("Leave out --separate or --animate.")
    if separate is not None and out is not None:
        raise click.UsageError("--out names the file of a grid; leave out --separate or --out.")
    from vgx.console import Voice
    from vgx.images import save_separately
    from vgx.runs import directory
    from vgx.sampling.model import stream
    from vgx.training.session import pick_device

    voice, trained, fields = Voice(), directory.find(run), sampler_fields(settings)
    if separate is None:
        path = save_grid(trained, sampler, fields, n, seed, out, device, animate, best)
        voice.say(f"Picture {path}")
        return
    with _notices_shown():
        chunks = stream(
            trained, sampler, n, seed, settings=fields, device=pick_device(device), best=best
        )
    with voice.work("Drawing", n) as advance:
        for more in save_separately(chunks, separate):
            advance(more, "images")
    voice.say(f"{n:,} images in {separate}")


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
    """Draw n images from a run; write them as a grid or an animation, and return the file."""
    from vgx import images
    from vgx.recipe.model import load_recipe
    from vgx.sampling.model import draw, registry_of, with_sampler
    from vgx.training.session import pick_device

    registry = registry_of(run)
    recipe = load_recipe(run.recipe_file, (), registry)
    recipe = with_sampler(recipe, sampler, settings, registry)
    with _notices_shown():
        drawn, step = draw(run, recipe, n, seed, pick_device(device), best=best)
    name = f"{recipe.sampler.type}-{step:08}-seed-{seed}"
    path = out or run.samples / f"{name}.{'webp' if animate else 'png'}"
    (images.animate if animate else images.save_grid)(drawn, path)
    return path


@contextmanager
def _notices_shown() -> Iterator[None]:
    """Print the notices that are given in the block."""
    from vgx.console import Voice
    from vgx.errors import noticing

    notices: list[str] = []
    with noticing(notices):
        yield
    for notice in notices:
        Voice().warn(notice)


def sampler_fields(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a sampler that texts such as "of=4" set, their values read as YAML.

    Raises `RecipeError` for a text without "=" and for a value that is no YAML.
    """
    from vgx.errors import RecipeError
    from vgx.recipe.yaml import read

    fields: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--set {text}: write it as KEY=VALUE")
        node, faults = read(value, f"--set {key}")
        if faults:
            raise RecipeError(f"--set {text}: {faults[0].message}")
        fields[key] = node.plain()
    return fields


COMMANDS = (sample,)
