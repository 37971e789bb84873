"""A trained run as something to draw with: its networks, its latents, new pictures.

Letters: N pictures, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgx import checkpoint, keys
from vgx.components import Fitted
from vgx.data import as_images, open_store
from vgx.engine import build_network, sigmoid, under, untrained
from vgx.errors import RecipeError, StorageError
from vgx.recipe import Recipe, load_recipe, with_part
from vgx.registry import Registry, discover
from vgx.rundir import Run, find, write_file

CHUNK = 64  # pictures decoded at once


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
) -> Model:
    """Load a run's newest checkpoint; nothing means the newest run.

    Raises `StorageError` when there is no run or no checkpoint that can be believed.
    """
    found = find(run)
    return load_with(
        found, load_recipe(found.recipe_file, (), registry_of(found)), device, networks
    )


def load_with(
    run: Run, recipe: Recipe, device: torch.device | str, networks: tuple[str, ...]
) -> Model:
    """Load a run whose recipe is at hand."""
    path, state = checkpoint.load(run)
    loaded: dict[str, nn.Module | None] = {"encoder": None, "decoder": None, "discriminator": None}
    for name in networks:
        network = build_network(untrained(recipe), name)
        if network is None:
            continue
        tensors = under(state.model, f"average.module.{name}") or under(state.model, name)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise StorageError(f"{path}: does not fit the {name} of the recipe: {error}") from error
        loaded[name] = network.to(device).eval().requires_grad_(False)
    codes = state.latents.get("codes")
    if codes is None or codes.shape[1:] != recipe.latent.shape or not codes.is_floating_point():
        raise StorageError(f"{path}: its latents are not of the recipe's shape")
    codes = codes.to(device)
    return Model(recipe, state.numbers["step"], codes, **loaded)  # type: ignore[arg-type]


def sample(
    run: Run | str | Path | int | None = None,
    sampler: str | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """[n, C, H, W]  New pictures in [0, 1] from a run's newest checkpoint.

    `sampler` is a type and `settings` its fields; by default the recipe's own sampler draws.
    Picture i depends on the run, the sampler, the seed and i alone.
    """
    found = find(run)
    registry = registry_of(found)
    recipe = load_recipe(found.recipe_file, (), registry)
    if sampler is not None or settings:
        recipe = with_sampler(recipe, sampler, settings or {}, registry)
    return draw(found, recipe, n, seed, device)[0]


def with_sampler(
    recipe: Recipe, sampler: str | None, settings: dict[str, Any], registry: Registry
) -> Recipe:
    """Return the recipe with another sampler, or with its own set otherwise."""
    own = recipe.sampler.model_dump(mode="json")
    base = own if sampler in (None, own["type"]) else {"type": sampler}
    return with_part(recipe, "sampler", {**base, **settings}, registry)


def draw(
    run: Run, recipe: Recipe, n: int, seed: int, device: torch.device | str
) -> tuple[Tensor, int]:
    """[n, C, H, W]  Pictures in [0, 1] from the recipe's sampler, and the checkpoint's step."""
    source = recipe.sampler.pictures(recipe.image)
    names = ("decoder",) if source is None else ("encoder", "decoder")
    model = load_with(run, recipe, device, names)
    # On the CPU, so that every device draws the same latents.
    codes = model.codes.cpu()  # [K, *Z]
    drawer = recipe.sampler.build(recipe.latent)
    if source is not None:
        pictures = as_images(open_store(source, replace(recipe.image, classes=0)).images, device)
        codes = model.encode(pictures).cpu()
    elif isinstance(drawer, Fitted):
        _fit(drawer, recipe, codes, run.fits / f"{recipe.sampler.type}-{model.step:08}")
    z = drawer.draw(n, codes, keys.generator(seed, "sampler"))  # [n, *Z]
    return model.decode(z.to(device)), model.step


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
        z = drawer.draw(1, codes, keys.generator(0, "check"))  # [1, *Z]
        fits = z.shape[1:] == codes.shape[1:] and bool(z.isfinite().all())
    except Exception as error:
        advice = "delete it, and it is learned again"
        raise StorageError(f"{file}: not what this sampler learns; {advice}: {error!r}") from error
    if not fits:
        raise StorageError(f"{file}: latents drawn with it are not the run's; delete it")


def registry_of(run: Run) -> Registry:
    """Return the installed plugins and those that were copied into the run."""
    return discover(run.plugin_files)


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Write images [N, C, H, W] in [0, 1] as one PNG, as square as it goes: 100 make 10x10."""
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    save_png(make_grid(images.cpu(), nrow=columns, padding=2), path)


def save_png(image: Tensor, path: Path) -> None:
    """Write an image [C, H, W] in [0, 1] as a PNG. Raises `StorageError`."""
    from PIL import Image

    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)  # [H, W, C]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze(-1).cpu().numpy()).save(path, "PNG")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
