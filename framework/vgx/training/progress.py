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
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.images import save_grid
from vgx.runs.directory import Run
from vgx.sampling.model import current_model

SAMPLES = 64  # images in a grid of decoded latents
RECONSTRUCTED = 16  # images in a grid of reconstructions, each above its own


def draw(engine: Engine, store: Store, run: Run, step: int) -> dict[str, Tensor]:
    """Write the grids of decoded fixed latents and of reconstructions after a step.

    Returns the grids [C, H, W] by name.
    """
    model = current_model(engine, step)
    with evaluating(model.networks):
        images = model.decode(fixed_latents(engine, SAMPLES))  # [N, C, H, W]
        grids = {"samples": save_grid(images, run.samples / f"step-{step:08}.png")}
        if model.encoder is not None:
            batch = as_batch(store, RECONSTRUCTED, engine.device)
            real = batch.images  # [N, C, H, W]
            recon = model.decode(model.encode(real), batch.labels)  # [N, C, H, W]
            half = math.ceil(len(real) / 2)
            rows = torch.cat([real[:half], recon[:half], real[half:], recon[half:]])
            grids["recon"] = save_grid(rows, run.samples / f"recon-{step:08}.png", columns=half)
    return grids


def fixed_latents(engine: Engine, n: int) -> Tensor:
    """[n, *Z]  Return the latents that are decoded again and again in this run."""
    generator = rng.generator(engine.recipe.train.seed, "fixed latents")
    z = torch.randn(n, *engine.recipe.latent.shape, generator=generator)  # [n, *Z]
    return z.to(engine.device)
