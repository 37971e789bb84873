"""Commands that train and draw: run, resume, sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from vgx.cli import common

if TYPE_CHECKING:
    from vgx.console import Voice
    from vgx.runs.directory import Run
    from vgx.sampling.draw import Samples

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Change a value: train.batch=32, losses.1.weight=10.",
)  # fmt: skip
plugin_option = click.option(
    "--plugin", "plugins", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="A Python file with parts of your own.",
)  # fmt: skip
device_option = click.option(
    "--device", metavar="D", help="cpu, cuda, cuda:1; by default the best."
)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@set_option
@plugin_option
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of runs.")
@click.option("--resume", "resumed", metavar="RUN", help="Go on with this run instead.")
@click.option("--profile", is_flag=True, help="Show what takes the time of a few early steps.")
@device_option
@common
def run(
    recipe: Path | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    resumed: str | None,
    profile: bool,
    device: str | None,
) -> None:
    """Train RECIPE: check it, train it, draw its pictures."""
    if resumed is None and recipe is None:
        raise click.UsageError("Name a RECIPE, or a run to go on with: --resume RUN.")
    if resumed is not None and profile:
        raise click.UsageError("A profile is made of a new run; leave out --resume or --profile.")
    if resumed is not None and plugins:
        raise click.UsageError("A resumed run uses its own copies of plugins; leave out --plugin.")
    from vgx.console import Voice
    from vgx.parts.registry import discover
    from vgx.recipe.load import load_recipe
    from vgx.runs import directory as rundir
    from vgx.sampling import model as sampling
    from vgx.training import session as training

    voice = Voice()
    if resumed is None:
        assert recipe is not None
        registry = discover(plugins)
        loaded = load_recipe(recipe, overrides, registry)
        folder = recipe.parent
        made = training.run(loaded, out, device, plugins, registry, voice, folder, profile=profile)
        _finish(made, device, voice)
        return
    found = rundir.find(resumed, out)
    changed = None
    if recipe is not None or overrides:
        base = recipe or found.recipe_file
        changed = load_recipe(base, overrides, sampling.registry_of(found))
    _finish(training.resume(found, changed, device, voice), device, voice)


@click.command()
@click.argument("run", required=False)
@click.option("--verify", is_flag=True, help="First repeat the last steps, and compare.")
@click.option("--force-unlock", is_flag=True, help="Whoever trained it on another machine is gone.")
@device_option
@common
def resume(run: str | None, verify: bool, force_unlock: bool, device: str | None) -> None:
    """Go on with RUN (a path, number or name; the newest by default)."""
    from vgx.console import Voice
    from vgx.runs import directory as rundir
    from vgx.training import session as training
    from vgx.training import verify as replay

    voice = Voice()
    if force_unlock:
        rundir.find(run).unlock()
    if verify:
        replay.verify(run, device, voice)
    _finish(training.resume(run, None, device, voice), device, voice)


def _finish(run: Run, device: str | None, voice: Voice) -> None:
    """Draw the recipe's own grid and say how to go on."""
    path = _grid(run, None, {}, 100, 0, None, device)
    voice.say(f"Picture {path}")
    voice.say(f"Draw more with: vgx sample {run.path}    go on with: vgx resume {run.path}")


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
    "--separate", metavar="DIR", type=click.Path(path_type=Path), help="Single pictures instead."
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
    """Draw a grid of new pictures from RUN (the newest by default); 100 make 10x10."""
    from vgx.console import Voice
    from vgx.images import save_separately
    from vgx.recipe.load import parse_settings
    from vgx.runs import directory as rundir

    if separate is not None and animate:
        raise click.UsageError("Leave out --separate or --animate.")
    voice, found, fields = Voice(), rundir.find(run), parse_settings(settings)
    if separate is None:
        grid = _grid(found, sampler, fields, n, seed, out, device, animate, best)
        voice.say(f"Picture {grid}")
        return
    chosen = _samples(found, sampler, fields, n, seed, device, best)
    with voice.work("Drawing", n) as advance:
        for more in save_separately(chosen.chunks, separate):
            advance(more, "pictures")
    voice.say(f"{n:,} pictures in {separate}")


def _grid(
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
    from vgx.images import animate as save_animation
    from vgx.images import save_grid

    chosen = _samples(run, sampler, settings, n, seed, device, best)
    name = f"{chosen.sampler}-{chosen.step:08}-seed-{seed}"
    path = out or run.samples / f"{name}.{'webp' if animate else 'png'}"
    (save_animation if animate else save_grid)(chosen.images(), path)
    return path


def _samples(
    run: Run,
    sampler: str | None,
    settings: dict[str, Any],
    n: int,
    seed: int,
    device: str | None,
    best: bool,
) -> Samples:
    from vgx.sampling.draw import samples
    from vgx.training.session import pick_device

    with _noticing():
        chosen = pick_device(device)
        return samples(run, sampler, n, seed, settings=settings, device=chosen, best=best)


@contextmanager
def _noticing() -> Iterator[None]:
    """Say what a person must know about what is done in the block."""
    from vgx.console import Voice
    from vgx.errors import noticing

    notices: list[str] = []
    with noticing(notices):
        yield
    for notice in notices:
        Voice().warn(notice)


COMMANDS = (run, resume, sample)
