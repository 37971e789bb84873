"""Pictures of a training: always of the same latents, and of the same real pictures.

Letters: N pictures, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vgx import rng
from vgx.data.batches import as_batch
from vgx.data.store import Store
from vgx.engine.build import sigmoid
from vgx.engine.engine import Engine
from vgx.images import save_grid
from vgx.runs.directory import Run
from vgx.sampling.model import in_turn

DRAWN = 64  # pictures in a grid of fixed latents
RECONSTRUCTED = 16  # pictures above their reconstructions


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
    chance = rng.generator(recipe.train.seed, "fixed latents")
    z = torch.randn(DRAWN, *recipe.latent.shape, generator=chance).to(engine.device)  # [N, *Z]
    name = f"{done:08}.png"

    def decoded(z: Tensor, labels: Tensor | None) -> Tensor:
        told = (labels,) if recipe.decoder.conditional else ()
        return sigmoid(shown["decoder"](z, *told))  # [N, C, H, W]

    images = decoded(z, in_turn(DRAWN, recipe, engine.device))
    grids = {"samples": save_grid(images, made.samples / f"step-{name}")}
    if "encoder" in shown:
        batch = as_batch(store, RECONSTRUCTED, engine.device)
        real = batch.images
        recon = decoded(shown["encoder"](real).mean, batch.labels)  # [N, C, H, W]
        half = math.ceil(len(real) / 2)
        rows = [real[:half], recon[:half], real[half:], recon[half:]]
        path = made.samples / f"recon-{name}"
        grids["recon"] = save_grid(torch.cat(rows), path, columns=half)
    for network in engine.networks.values():
        network.train()
    return grids
