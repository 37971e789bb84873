"""Grids drawn while training, in the run directory: which there are, and a time-lapse of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vgx.files import write_file
from vgx.images import SHORT, WIDE, encode_animation, enlarge
from vgx.parts.values import LARGEST
from vgx.runs.directory import Run
from vgx.runs.reading import grid as read_grid
from vgx.runs.reading import unless_damaged

if TYPE_CHECKING:
    from PIL import Image

FRAMES = 40  # in a time-lapse, at most
LONG = 1500  # milliseconds that the last frame is shown
_GRID = re.compile(r"(?:step|prior|recon)-(\d{8,})\.png")
T = TypeVar("T")


def due(step: int, every: int) -> bool:
    """Return whether grids are drawn after a step: every `every` steps, and at 1, 2, 5, 10, 20, ...

    A network changes fastest in its first steps.
    """
    return step % every == 0 or str(step).rstrip("0") in ("1", "2", "5")


def pixels_of(recipe: Mapping[str, Any]) -> int:
    """Return the number of pixels of one image of a recipe, plain data; 0 if it does not say so."""
    image = recipe.get("image")
    size = image.get("size") if isinstance(image, dict) else None
    sides = size if isinstance(size, list) else [size, size]
    known = [min(side, LARGEST) for side in sides if isinstance(side, int) and side > 0]
    return math.prod(known) if len(known) == len(sides) == 2 else 0


def files(samples: Path, step: int) -> dict[str, Path]:
    """Return the files of a step's grids in a folder of samples, by their names in trackers."""
    names = {"samples": "step", "prior": "prior", "recon": "recon"}
    return {kind: samples / f"{name}-{step:08}.png" for kind, name in names.items()}


def drawn(run: Run) -> list[Path]:
    """Return the grids of samples, in the order of their steps."""
    grids = [path for path in run.samples.glob("step-*.png") if _GRID.fullmatch(path.name)]
    return sorted(grids, key=step_of)


def forget(run: Run, step: int) -> None:
    """Remove the grids of the steps after a step, which are about to be done again."""
    for file in run.place("samples").glob("*-*.png"):
        if (grid := _GRID.fullmatch(file.name)) and int(grid[1]) > step:
            file.unlink(missing_ok=True)


def step_of(grid: Path) -> int:
    """Return the step that a grid was drawn after."""
    return int(grid.stem.removeprefix("step-"))


def evenly(items: list[T], most: int) -> list[T]:
    """Return at most `most` items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def timelapse(run: Run, pixels: int = 0) -> None:
    """Make `samples/timelapse.webp` of the grids of samples, if there are two.

    `pixels` is the number of pixels of one image of the run: grids of large ones are larger. A
    damaged grid is left out, with a `Notice`.
    """
    frames = []
    for file in evenly(drawn(run), FRAMES):
        grid = unless_damaged(lambda path: read_grid(path, pixels), file)
        if grid is not None:
            frames.append(_frame(grid, step_of(file)))
    if len(frames) < 2:
        return
    largest = (max(frame.width for frame in frames), max(frame.height for frame in frames))
    # Grids may differ in size: captions are not equally long, a sampler may have other rows.
    frames = [_pasted(frame, largest) for frame in frames]
    times = [SHORT] * (len(frames) - 1) + [LONG]
    write_file(run.place("samples", "timelapse.webp"), encode_animation(frames, times))


def _pasted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image at the upper left of a black one."""
    from PIL import Image

    whole = Image.new("RGB", size)
    whole.paste(image)
    return whole


def _frame(grid: Image.Image, step: int) -> Image.Image:
    """Return a grid, scaled to a common width, with its step written below it."""
    from PIL import Image, ImageDraw

    grid.thumbnail((WIDE, WIDE))
    image = enlarge(grid.convert("RGB"))
    frame = Image.new("RGB", (image.width, image.height + 18))
    frame.paste(image)
    place = (frame.width / 2, image.height + 9)
    ImageDraw.Draw(frame).text(place, f"step {step:,}", "white", anchor="mm")
    return frame
