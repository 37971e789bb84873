"""New images from a trained run: the one place where a sampler is prepared and draws.

Letters: N images in a chunk, n images in all, C channels, H x W pixels, Z the latent shape, K
stored latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vgx import rng
from vgx.data.batches import as_images
from vgx.data.store import open_store
from vgx.errors import StorageError
from vgx.files import write_file
from vgx.images import ahead, threads
from vgx.parts.kinds import Fitted, LatentSampler, Source
from vgx.parts.registry import Registry
from vgx.recipe.load import load_recipe, with_part
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint
from vgx.runs.directory import Run, find
from vgx.sampling.model import CHUNK, Model, labels_in_turn, load_model, registry_of

VALUES = 2**21  # pixel values decoded at once, at most


@dataclass(frozen=True, eq=False)
class Samples:
    """New images that are decoded while they are read."""

    sampler: str  # its type
    step: int  # of the checkpoint
    chunks: Iterator[Tensor]  # [N, C, H, W] in [0, 1]

    def images(self) -> Tensor:
        """[n, C, H, W]  All images, in [0, 1]."""
        return torch.cat(list(self.chunks))


def sample(
    run: Run | str | Path | int | None = None,
    sampler: str | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str | None = "cpu",
    best: bool = False,
) -> Tensor:
    """[n, C, H, W]  New images in [0, 1] from a run's newest checkpoint, or its best one.

    They are drawn on `device` and stay there; None is the device that `vgx.run` takes by default.
    `sampler` is a type and `settings` its fields; by default the recipe's own sampler draws. Image
    i depends on the run, the sampler, the seed and i alone, never on n.
    """
    return samples(run, sampler, n, seed, settings=settings, device=device, best=best).images()


def samples(
    run: Run | str | Path | int | None = None,
    sampler: str | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str | None = "cpu",
    best: bool = False,
) -> Samples:
    """Give the images of `sample` in chunks, so that memory does not grow with n."""
    run = find(run)
    registry = registry_of(run)
    recipe = load_recipe(run.recipe_file, (), registry)
    if sampler is not None or settings:
        recipe = with_sampler(recipe, sampler, settings or {}, registry)
    source = recipe.sampler.pictures(recipe.image)
    networks = ("decoder",) if source is None else ("encoder", "decoder")
    model = load_model(run, recipe, device, networks, best=best)
    if source is None:
        prepared, codes = prepare(model, run)
    else:
        prepared, codes = recipe.sampler.build(recipe.latent), encode_images(model, source)
    return Samples(recipe.sampler.type, model.step, draw(model, prepared, codes, n, seed))


def with_sampler(
    recipe: Recipe, sampler: str | None, settings: dict[str, Any], registry: Registry
) -> Recipe:
    """Return the recipe with another sampler, or with other fields of its own sampler."""
    own = recipe.sampler.model_dump(mode="json")
    base = own if sampler in (None, own["type"]) else {"type": sampler}
    return with_part(recipe, "sampler", {**base, **settings}, registry)


def prepare(model: Model, run: Run | None = None) -> tuple[LatentSampler, Tensor]:
    """Return the recipe's sampler, ready to draw, and the latents [K, *Z] that it draws from.

    A fitted sampler learns from the stored latents; with a run, what it learned is kept there and
    used again. Latents are on the CPU, so that every device draws the same ones.
    """
    part = model.recipe.sampler
    sampler = part.build(model.recipe.latent)
    codes = model.codes.cpu()  # [K, *Z]
    if isinstance(sampler, Fitted):
        if run is None:
            sampler.fit(codes)
        else:
            _fit_once(sampler, model.recipe, codes, run.fits / f"{part.type}-{model.step:08}")
    return sampler, codes


def encode_images(model: Model, source: Source) -> Tensor:
    """[K, *Z]  The posterior means of a sampler's own images, which it draws from; on the CPU."""
    image = replace(model.recipe.image, classes=0)
    stored = open_store(source, image, advice="remove it from the sampler's path").images
    pieces = (stored[start : start + CHUNK] for start in range(0, len(stored), CHUNK))
    device = model.codes.device
    return torch.cat([model.encode(as_images(piece, device)).cpu() for piece in pieces])


def draw(
    model: Model, sampler: LatentSampler, codes: Tensor, n: int, seed: int
) -> Iterator[Tensor]:
    """Draw n latents and give their images [N, C, H, W] in [0, 1], chunk by chunk."""
    return decoded(model, sampler.draw(n, codes, rng.generator(seed, "sampler")))


def decoded(model: Model, z: Tensor) -> Iterator[Tensor]:
    """Give the images [N, C, H, W] in [0, 1] of latents [n, *Z], chunk by chunk.

    The last chunk is padded: another number of images may be summed in another order, and image i
    must not depend on n, to the last bit.
    """
    labels = labels_in_turn(len(z), model.recipe, z.device)  # [n]
    size = max(1, min(CHUNK, VALUES // model.recipe.image.pixel_values))
    device = model.codes.device

    def decode(start: int) -> Tensor:
        part, own = z[start : start + size], labels[start : start + size]
        missing = size - len(part)
        padded = F.pad(part, (0, 0) * (z.dim() - 1) + (0, missing)).to(device)  # [size, *Z]
        return model.decode(padded, F.pad(own, (0, missing)).to(device))[: len(part)]

    # A GPU runs one operation after another; the cores of a CPU run side by side.
    return ahead(decode, range(0, len(z), size), 1 if device.type == "cuda" else threads())


def _fit_once(sampler: Fitted, recipe: Recipe, codes: Tensor, path: Path) -> None:
    """Fit to codes [K, *Z], or load what was learned from them with the same settings before."""
    settings = hashlib.sha256(recipe.sampler.model_dump_json().encode()).hexdigest()[:8]
    file = path.with_name(f"{path.name}-{settings}.safetensors")
    if file.is_file():
        _load_fit(sampler, checkpoint.tensors(file.read_bytes(), file), codes, file)
        return
    sampler.fit(codes)
    write_file(file, checkpoint.tensor_bytes(sampler.state_dict()))


def _load_fit(sampler: Fitted, state: dict[str, Tensor], codes: Tensor, file: Path) -> None:
    """Load what a sampler learned. Raises `StorageError` when it does not fit the sampler."""
    try:
        sampler.load_state_dict(state)
        z = sampler.draw(1, codes, rng.generator(0, "check"))  # [1, *Z]
        fits = z.shape[1:] == codes.shape[1:] and bool(z.isfinite().all())
    # A file of another sampler makes it raise many kinds of error.
    except Exception as error:
        advice = "delete it, and it is learned again"
        raise StorageError(f"{file}: does not fit this sampler; {advice}: {error!r}") from error
    if not fits:
        raise StorageError(f"{file}: latents drawn with it do not fit the run; delete it")
