"""Pictures of a training: always of the same latents, and of the same real pictures.

Letters: N pictures, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vgx import keys
from vgx.data import Store, as_batch
from vgx.engine import Engine
from vgx.networks import sigmoid
from vgx.pictures import save_grid
from vgx.rundir import Run, write_file
from vgx.sampling import in_turn

if TYPE_CHECKING:
    from PIL import Image

DRAWN = 64  # pictures in a grid of fixed latents
RECONSTRUCTED = 16  # pictures above their reconstructions
FRAMES, WIDE = 40, 384  # of a time-lapse, at most
LONG, SHORT = 1500, 150  # milliseconds that its last picture stands, and each of the others
_DRAWN = re.compile(r"step-(\d{8,})\.png")
T = TypeVar("T")


def due(step: int, every: int) -> bool:
    """Tell whether pictures are drawn after a step: every so many, and at 1, 2, 5, 10, 20, ...

    What a network learns first it learns in few steps.
    """
    return step % every == 0 or str(step).rstrip("0") in ("1", "2", "5")


@torch.no_grad()
def draw(engine: Engine, store: Store, made: Run, done: int) -> dict[str, Tensor]:
    """Draw the same latents, and the same pictures above their reconstructions, as ever.

    Returns the grids [C, H, W] by name.
    """
    recipe = engine.recipe
    shown = {
        name: engine.shown(name).eval()
        for name in ("encoder", "decoder")
        if name in engine.networks
    }
    chance = keys.generator(recipe.train.seed, "fixed latents")
    z = torch.randn(DRAWN, *recipe.latent.shape, generator=chance).to(engine.device)  # [N, *Z]
    name = f"{done:08}.png"

    def decoded(z: Tensor, labels: Tensor | None) -> Tensor:
        told = (labels,) if recipe.decoder.conditional else ()
        return sigmoid(shown["decoder"](z, *told))  # [N, C, H, W]

    images = decoded(z, in_turn(DRAWN, recipe, engine.device))
    grids = {"samples": save_grid(images, made.samples / f"step-{name}")}
    if "encoder" in shown:
        real, labels = as_batch(store, RECONSTRUCTED, engine.device)
        recon = decoded(shown["encoder"](real).mean, labels)  # [N, C, H, W]
        half = math.ceil(len(real) / 2)
        rows = [real[:half], recon[:half], real[half:], recon[half:]]
        path = made.samples / f"recon-{name}"
        grids["recon"] = save_grid(torch.cat(rows), path, columns=half)
    for network in engine.networks.values():
        network.train()
    return grids


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
    write_file(run.samples / "timelapse.webp", _film(frames, times))


def animate(images: Tensor, path: Path) -> None:
    """Write images [N, C, H, W] in [0, 1] one after another, as an animated WebP."""
    from PIL import Image

    scaled = (images * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = scaled.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()  # [N, H, W, C] or [N, H, W]
    frames = [_enlarged(Image.fromarray(each).convert("RGB")) for each in pixels]
    write_file(path, _film(frames, [SHORT] * len(frames)))


def _film(frames: list[Image.Image], times: list[int]) -> bytes:
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=times, loop=0,
        quality=80, method=2,
    )  # fmt: skip
    return file.getvalue()


def _enlarged(picture: Image.Image) -> Image.Image:
    """Return a picture made larger by a whole number: each pixel stays one."""
    factor = max(WIDE // picture.width, 1)
    return picture.resize([side * factor for side in picture.size], 0)


def _frame(grid: Path) -> Image.Image:
    """Return a grid with its step written under it, brought to a width."""
    from PIL import Image, ImageDraw

    with Image.open(grid) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((WIDE, WIDE))
    picture = _enlarged(picture)
    frame = Image.new("RGB", (picture.width, picture.height + 18))
    frame.paste(picture)
    place = (frame.width / 2, picture.height + 9)
    ImageDraw.Draw(frame).text(place, f"step {step_of(grid):,}", "white", anchor="mm")
    return frame
