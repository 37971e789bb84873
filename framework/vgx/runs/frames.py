"""Pictures of a training in its run directory: which there are, and a time-lapse of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vgx.files import write_file
from vgx.images import SHORT, WIDE, enlarged, film
from vgx.runs.directory import Run

if TYPE_CHECKING:
    from PIL import Image

FRAMES = 40  # of a time-lapse, at most
LONG = 1500  # milliseconds that its last picture stands
_DRAWN = re.compile(r"step-(\d{8,})\.png")
T = TypeVar("T")


def due(step: int, every: int) -> bool:
    """Tell whether pictures are drawn after a step: every so many, and at 1, 2, 5, 10, 20, ...

    What a network learns first it learns in few steps.
    """
    return step % every == 0 or str(step).rstrip("0") in ("1", "2", "5")


def drawn(run: Run) -> list[Path]:
    """Return the grids of the fixed latents, in the order of their steps."""
    found = [path for path in run.samples.glob("step-*.png") if _DRAWN.fullmatch(path.name)]
    return sorted(found, key=step_of)


def forget(run: Run, step: int) -> None:
    """Remove the pictures of a step."""
    for kind in ("step", "recon"):
        (run.samples / f"{kind}-{step:08}.png").unlink(missing_ok=True)


def step_of(grid: Path) -> int:
    """Return the step that a grid was drawn after."""
    return int(grid.stem.removeprefix("step-"))


def evenly(items: list[T], most: int) -> list[T]:
    """Return at most so many of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def timelapse(run: Run) -> None:
    """Make `samples/timelapse.webp` of the grids of the fixed latents, if there are some."""
    frames = [_frame(grid) for grid in evenly(drawn(run), FRAMES)]
    if len(frames) < 2:
        return
    times = [SHORT] * (len(frames) - 1) + [LONG]
    write_file(run.samples / "timelapse.webp", film(frames, times))


def _frame(grid: Path) -> Image.Image:
    """Return a grid with its step written under it, brought to a width."""
    from PIL import Image, ImageDraw

    with Image.open(grid) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((WIDE, WIDE))
    picture = enlarged(picture)
    frame = Image.new("RGB", (picture.width, picture.height + 18))
    frame.paste(picture)
    place = (frame.width / 2, picture.height + 9)
    ImageDraw.Draw(frame).text(place, f"step {step_of(grid):,}", "white", anchor="mm")
    return frame
