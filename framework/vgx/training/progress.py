"""Image grids while training: always with the same random numbers, and of the same real images.

Letters: N images, C channels, H x W pixels, Z the latent shape, K latents to draw from.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vgx import rng
from vgx.data.batches import as_batch, as_images
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.errors import Notice, noticing
from vgx.images import save_grid
from vgx.runs import frames
from vgx.runs.directory import Run
from vgx.sampling.draw import Captions, decode, draw_latents, prepare, random_labels, whole_rows
from vgx.sampling.model import CHUNK, Model, current_model

SAMPLES = 64  # images in a grid of samples, at most in whole rows
ENCODED = 256  # real images whose latents samplers draw from; more where a sampler needs more
RECONSTRUCTED = 16  # images in a grid of reconstructions, each above its own


def draw(engine: Engine, store: Store, run: Run, step: int) -> dict[str, Tensor]:
    """Write the grids of a step: samples, samples from N(0, I), and reconstructions.

    Returns the grids [C, H, W] by name. Samples are those of the recipe's sampler. A sampler of
    stored latents draws from those of some real images, which are encoded anew each time; the grid
    from N(0, I) is drawn for such samplers only. The training is left as it was. When the sampler
    fails, its grid is missing, with a notice.
    """
    seed, part = engine.recipe.train.seed, engine.recipe.sampler
    paths = frames.files(run.samples, step).items()
    files = {name: run.place("samples", path.name) for name, path in paths}
    grids: dict[str, Tensor] = {}
    model = current_model(engine, step)
    with rng.ambient(seed, "grids", step), evaluating(model.networks):
        encoded = _encoded(model, engine, store)
        drawn = _own_images(encoded, store)
        if drawn is not None:
            images, captions = drawn  # [N, C, H, W]
            grids["samples"] = save_grid(images, files["samples"], part.row_length, captions)
        if part.least_codes or drawn is None:
            labels = None
            if encoded.labels is not None:
                labels = random_labels(encoded.labels.bincount().numpy(), SAMPLES, seed)  # [N]
            images = model.decode(fixed_latents(engine, SAMPLES), labels)  # [N, C, H, W]
            grids["prior"] = save_grid(images, files["prior"])
        if model.encoder is not None:
            batch = as_batch(store, RECONSTRUCTED, engine.device)
            real = batch.images  # [N, C, H, W]
            recon = model.decode(model.encode(real, batch.labels), batch.labels)  # [N, C, H, W]
            half = math.ceil(len(real) / 2)
            rows = torch.cat([real[:half], recon[:half], real[half:], recon[half:]])
            grids["recon"] = save_grid(rows, files["recon"], columns=half)
    return grids


def fixed_latents(engine: Engine, n: int) -> Tensor:
    """[n, *Z]  Return the latents from N(0, I) that are decoded again and again in this run."""
    generator = rng.generator(engine.recipe.train.seed, "fixed latents")
    z = torch.randn(n, *engine.recipe.latent.shape, generator=generator)  # [n, *Z]
    return z.to(engine.device)


@torch.no_grad()
def _encoded(model: Model, engine: Engine, store: Store) -> Model:
    """Return the model with posterior samples of the same real images as its stored latents.

    Without an encoder they are from N(0, I), as those of its training; and for a sampler that needs
    none, which saves the encoding.
    """
    trained = np.flatnonzero(~held_out(store.hashes, engine.recipe.eval.holdout))
    rows = store.spread(trained, max(ENCODED, engine.recipe.sampler.least_codes))  # [K]
    count = len(rows)
    labels = None if store.labels is None else torch.from_numpy(store.labels[rows])  # [K]
    if model.encoder is None or not engine.recipe.sampler.least_codes:
        return replace(model, codes=fixed_latents(engine, count), labels=labels)
    generator = rng.generator(engine.recipe.train.seed, "fixed latents", device=engine.device)
    pieces = np.array_split(rows, math.ceil(count / CHUNK))
    codes = []
    for piece in pieces:
        images = as_images(store.images[piece], engine.device)  # [N, C, H, W]
        own = None if store.labels is None else torch.from_numpy(store.labels[piece])  # [N]
        codes.append(model.posterior(images, own).sample(generator))  # [N, *Z]
    return replace(model, codes=torch.cat(codes), labels=labels)  # codes [K, *Z]


def _own_images(model: Model, store: Store) -> tuple[Tensor, Captions] | None:
    """[N, C, H, W]  Draw with the recipe's sampler; None, with a notice, when it fails."""
    part, seed = model.recipe.sampler, model.recipe.train.seed
    try:
        with noticing([]):  # its notices are shown when samples are drawn after the training
            source = part.pictures(model.recipe.image)
            prepared = prepare(model, source=source, most=ENCODED)
            if prepared.classes:
                names = tuple(name for name, _ in store.classes(model.recipe.image))
                prepared = replace(prepared, names=names)
            latents = draw_latents(prepared, whole_rows(part, SAMPLES), seed)
            images = decode(model, prepared.sampler, latents.z, latents.labels)
            return images, latents.captions
    except Exception as error:  # noqa: BLE001 - a faulty sampler costs its own grid only
        text = f"the sampler {part.type} draws nothing for the grids of training: {error}"
        warnings.warn(text, Notice, stacklevel=2)
        return None
