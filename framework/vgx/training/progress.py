"""Image grids while training: always from the same latents, and of the same real images.

Letters: N images, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vgx import rng
from vgx.data.batches import as_batch
from vgx.data.store import Store
from vgx.engine.build import evaluating, label_inputs, sigmoid
from vgx.engine.engine import Engine
from vgx.images import save_grid
from vgx.runs.directory import Run
from vgx.sampling.model import labels_in_turn

SAMPLES = 64  # images in a grid of decoded latents
RECONSTRUCTED = 16  # images in a grid of reconstructions, each above its own


@torch.no_grad()
def draw(engine: Engine, store: Store, run: Run, step: int) -> dict[str, Tensor]:
    """Write the grids of decoded fixed latents and of reconstructions after a step.

    Returns the grids [C, H, W] by name.
    """
    recipe, device = engine.recipe, engine.device
    names = [name for name in ("encoder", "decoder") if name in engine.networks]
    networks = {name: engine.network_for_sampling(name) for name in names}

    def decode(z: Tensor, labels: Tensor | None) -> Tensor:
        inputs = label_inputs(recipe.decoder, labels)
        return sigmoid(networks["decoder"](z, *inputs))  # [N, C, H, W]

    with evaluating(networks.values()):
        images = decode(fixed_latents(engine, SAMPLES), labels_in_turn(SAMPLES, recipe, device))
        grids = {"samples": save_grid(images, run.samples / f"step-{step:08}.png")}
        if "encoder" in networks:
            batch = as_batch(store, RECONSTRUCTED, device)
            real = batch.images  # [N, C, H, W]
            recon = decode(networks["encoder"](real).mean, batch.labels)  # [N, C, H, W]
            half = math.ceil(len(real) / 2)
            rows = torch.cat([real[:half], recon[:half], real[half:], recon[half:]])
            grids["recon"] = save_grid(rows, run.samples / f"recon-{step:08}.png", columns=half)
    return grids


def fixed_latents(engine: Engine, n: int) -> Tensor:
    """[n, *Z]  Return the latents that are decoded again and again in this run."""
    generator = rng.generator(engine.recipe.train.seed, "fixed latents")
    z = torch.randn(n, *engine.recipe.latent.shape, generator=generator)  # [n, *Z]
    return z.to(engine.device)
