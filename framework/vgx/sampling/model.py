"""A trained run as something to draw with: its networks, its latents, new pictures.

Letters: N pictures, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgx import rng
from vgx.data.store import as_images, open_store
from vgx.engine.build import build_network, sigmoid, untrained
from vgx.errors import RecipeError, StorageError
from vgx.files import write_file
from vgx.images import ahead, threads
from vgx.parts.kinds import Fitted
from vgx.parts.registry import Registry, discover
from vgx.recipe.load import load_recipe, with_part
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint
from vgx.runs.directory import Run, find

CHUNK = 64  # pictures decoded at once
VALUES = 2**21  # pixel values decoded at once, where pictures are large


@dataclass(frozen=True, eq=False)
class Model:
    """A run's networks in evaluation mode, the averaged weights when there are any."""

    recipe: Recipe
    step: int
    codes: Tensor  # [K, *Z]  the run's stored latents, oldest first
    encoder: nn.Module | None
    decoder: nn.Module
    discriminator: nn.Module | None

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[N, *Z]  The posterior means of images [N, C, H, W] in [0, 1]."""
        if self.encoder is None:
            raise RecipeError(f"{self.recipe.name} has no encoder")
        return torch.cat([self.encoder(part).mean for part in torch.split(images, CHUNK)])

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  Pictures in [0, 1] of latents [N, *Z].

        A conditional decoder is told `labels` [N]; by default each class in turn.
        """
        if not self.recipe.decoder.conditional:
            return torch.cat([sigmoid(self.decoder(part)) for part in torch.split(z, CHUNK)])
        labels = in_turn(len(z), self.recipe, z.device) if labels is None else labels
        pairs = zip(torch.split(z, CHUNK), torch.split(labels, CHUNK), strict=True)
        return torch.cat([sigmoid(self.decoder(part, told)) for part, told in pairs])


def in_turn(n: int, recipe: Recipe, device: torch.device) -> Tensor:
    """[n]  Each label in turn: 0, 1, ... classes - 1, 0, and so on."""
    return torch.arange(n, device=device) % max(recipe.image.classes, 1)


def load(
    run: Run | str | Path | int | None = None,
    device: torch.device | str = "cpu",
    networks: tuple[str, ...] = ("encoder", "decoder", "discriminator"),
    *,
    best: bool = False,
) -> Model:
    """Load a run's newest checkpoint, or the best by `eval.best`; no run means the newest.

    Raises `StorageError` when there is no run or no checkpoint that can be believed.
    """
    found = find(run)
    return load_with(
        found, load_recipe(found.recipe_file, (), registry_of(found)), device, networks, best=best
    )


def load_with(
    run: Run,
    recipe: Recipe,
    device: torch.device | str,
    networks: tuple[str, ...],
    *,
    best: bool = False,
) -> Model:
    """Load a run whose recipe is at hand."""
    path, state = _best(run, recipe) if best else checkpoint.load(run)
    loaded: dict[str, nn.Module | None] = {"encoder": None, "decoder": None, "discriminator": None}
    for name in networks:
        network = build_network(untrained(recipe), name)
        if network is None:
            continue
        tensors = checkpoint.under(state.model, f"average.module.{name}") or checkpoint.under(
            state.model, name
        )
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise StorageError(f"{path}: does not fit the {name} of the recipe: {error}") from error
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loaded[name] = network.eval().requires_grad_(False)
    codes = state.latents.get("codes")
    if codes is None or codes.shape[1:] != recipe.latent.shape or not codes.is_floating_point():
        raise StorageError(f"{path}: its latents are not of the recipe's shape")
    codes = codes.to(device)
    return Model(recipe, state.numbers["step"], codes, **loaded)  # type: ignore[arg-type]


def _best(run: Run, recipe: Recipe) -> tuple[Path, checkpoint.State]:
    name = recipe.eval.best
    if name is None:
        raise RecipeError(f"{run.path}: its recipe says no eval.best, so no checkpoint is the best")
    step = checkpoint.best(run, name, recipe.eval.better[name])
    if step is None:
        raise StorageError(f"{run.path}: nothing was measured yet, so no checkpoint is the best")
    return checkpoint.load_step(run, step)


def sample(
    run: Run | str | Path | int | None = None,
    sampler: str | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    best: bool = False,
) -> Tensor:
    """[n, C, H, W]  New pictures in [0, 1] from a run's newest checkpoint, or its best one.

    `sampler` is a type and `settings` its fields; by default the recipe's own sampler draws.
    Picture i depends on the run, the sampler, the seed and i alone.
    """
    chunks = stream(run, sampler, n, seed, settings=settings, device=device, best=best)
    return torch.cat(list(chunks))


def stream(
    run: Run | str | Path | int | None = None,
    sampler: str | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    best: bool = False,
) -> Iterator[Tensor]:
    """Give the pictures of `sample` in chunks [N, C, H, W], whose memory does not grow with n."""
    found = find(run)
    registry = registry_of(found)
    recipe = load_recipe(found.recipe_file, (), registry)
    if sampler is not None or settings:
        recipe = with_sampler(recipe, sampler, settings or {}, registry)
    return drawn(found, recipe, n, seed, device, best=best)[0]


def with_sampler(
    recipe: Recipe, sampler: str | None, settings: dict[str, Any], registry: Registry
) -> Recipe:
    """Return the recipe with another sampler, or with its own set otherwise."""
    own = recipe.sampler.model_dump(mode="json")
    base = own if sampler in (None, own["type"]) else {"type": sampler}
    return with_part(recipe, "sampler", {**base, **settings}, registry)


def draw(
    run: Run,
    recipe: Recipe,
    n: int,
    seed: int,
    device: torch.device | str,
    *,
    best: bool = False,
) -> tuple[Tensor, int]:
    """[n, C, H, W]  Pictures in [0, 1] from the recipe's sampler, and the checkpoint's step."""
    chunks, step = drawn(run, recipe, n, seed, device, best=best)
    return torch.cat(list(chunks)), step


def drawn(
    run: Run,
    recipe: Recipe,
    n: int,
    seed: int,
    device: torch.device | str,
    *,
    best: bool = False,
) -> tuple[Iterator[Tensor], int]:
    """Return what gives the pictures of `draw` in chunks, and the checkpoint's step."""
    source = recipe.sampler.pictures(recipe.image)
    names = ("decoder",) if source is None else ("encoder", "decoder")
    model = load_with(run, recipe, device, names, best=best)
    # On the CPU, so that every device draws the same latents.
    codes = model.codes.cpu()  # [K, *Z]
    drawer = recipe.sampler.build(recipe.latent)
    if source is not None:
        plain, advice = replace(recipe.image, classes=0), "take it out of the sampler's path"
        stored = open_store(source, plain, advice=advice).images  # [K, H, W, C]
        pieces = (stored[start : start + CHUNK] for start in range(0, len(stored), CHUNK))
        codes = torch.cat([model.encode(as_images(part, device)).cpu() for part in pieces])
    elif isinstance(drawer, Fitted):
        _fit(drawer, recipe, codes, run.fits / f"{recipe.sampler.type}-{model.step:08}")
    z = drawer.draw(n, codes, rng.generator(seed, "sampler"))  # [n, *Z]
    return decoded(model, z, torch.device(device)), model.step


def decoded(model: Model, z: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Give pictures [N, C, H, W] of latents [n, *Z], chunk by chunk.

    The last chunk is filled up, for another number of pictures may take another way to the same
    sum: picture i does not depend on n, to the last bit.
    """
    labels = in_turn(len(z), model.recipe, z.device)
    size = max(1, min(CHUNK, VALUES // model.recipe.image.pixel_values))

    def decode(start: int) -> Tensor:
        part, told = z[start : start + size], labels[start : start + size]
        lacks = size - len(part)
        full = F.pad(part, (0, 0) * (z.dim() - 1) + (0, lacks)).to(device)  # [size, *Z]
        return model.decode(full, F.pad(told, (0, lacks)).to(device))[: len(part)]

    # A device runs one thing after another; the cores of a CPU do not.
    return ahead(decode, range(0, len(z), size), 1 if device.type == "cuda" else threads())


def _fit(drawer: Fitted, recipe: Recipe, codes: Tensor, path: Path) -> None:
    """Fit to codes [K, *Z], or take up what was fitted to the same ones with the same settings."""
    settings = hashlib.sha256(recipe.sampler.model_dump_json().encode()).hexdigest()[:8]
    file = path.with_name(f"{path.name}-{settings}.safetensors")
    if file.is_file():
        _take_up(drawer, checkpoint.tensors(file.read_bytes(), file), codes, file)
        return
    drawer.fit(codes)
    write_file(file, checkpoint.tensor_bytes(drawer.state_dict()))


def _take_up(drawer: Fitted, state: dict[str, Tensor], codes: Tensor, file: Path) -> None:
    """Have a sampler go on from what was learned before, if that is what it would have learned."""
    try:
        drawer.load_state_dict(state)
        z = drawer.draw(1, codes, rng.generator(0, "check"))  # [1, *Z]
        fits = z.shape[1:] == codes.shape[1:] and bool(z.isfinite().all())
    except Exception as error:
        advice = "delete it, and it is learned again"
        raise StorageError(f"{file}: not what this sampler learns; {advice}: {error!r}") from error
    if not fits:
        raise StorageError(f"{file}: latents drawn with it are not the run's; delete it")


def registry_of(run: Run) -> Registry:
    """Return the installed plugins and those that were copied into the run."""
    return discover(run.plugin_files)
