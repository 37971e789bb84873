"""A trained run as a model: its networks in evaluation mode, and its stored latents.

Letters: N images, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vgx.engine.build import (
    NETWORKS,
    build_network,
    label_inputs,
    pick_device,
    sigmoid,
    untrained,
)
from vgx.engine.engine import Engine
from vgx.errors import RecipeError, StorageError
from vgx.notebook import html
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, exported, hub
from vgx.runs.best import measured_until
from vgx.runs.checkpoint import OTHER_VERSION
from vgx.runs.directory import Run, find
from vgx.runs.trust import registry_of

CHUNK = 64  # images that a network processes at once


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A run's networks in evaluation mode, with averaged weights when there are any."""

    recipe: Recipe
    step: int
    codes: Tensor  # [K, *Z]  the run's stored latents, oldest first
    encoder: nn.Module | None
    decoder: nn.Module
    discriminator: nn.Module | None
    labels: Tensor | None = None  # [K]  of the stored latents; None if there are or were none
    kl: Tensor | None = None  # [*Z]  mean KL of the run's posteriors by dimension, if it is known

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that were loaded."""
        return [n for n in (self.encoder, self.decoder, self.discriminator) if n is not None]

    def __repr__(self) -> str:
        parts = (f"{name} {part} {size:,} weights" for name, part, size in self._rows())
        return f"{self._title}\n{', '.join(parts)}"

    def _repr_html_(self) -> str:
        rows = [(name, part, f"{size:,}") for name, part, size in self._rows()]
        header = ("network", "part", "weights")
        return html.block(html.title(self._title), html.table(header, rows))

    @property
    def _title(self) -> str:
        stored = f"{len(self.codes):,} stored latents of shape {[*self.recipe.latent.shape]}"
        return f"Model {self.recipe.name} at step {self.step:,}: {stored}"

    def _rows(self) -> list[tuple[str, str, int]]:
        return [
            (name, getattr(self.recipe, name).type, sum(p.numel() for p in network.parameters()))
            for name in NETWORKS
            if (network := getattr(self, name)) is not None
        ]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[N, *Z]  The posterior means of images [N, C, H, W] in [0, 1], on the model's device."""
        if self.encoder is None:
            raise RecipeError(f"{self.recipe.name} has no encoder")
        images = images.to(self.codes.device)
        return torch.cat([self.encoder(part).mean for part in torch.split(images, CHUNK)])

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  Images in [0, 1] of latents [N, *Z], on the model's device.

        A conditional decoder also gets `labels` [N]; by default each class in turn.
        """
        z = z.to(self.codes.device)
        labels = labels_in_turn(len(z), self.recipe, z.device) if labels is None else labels
        labels = labels.to(z.device)
        part, images = self.recipe.decoder, []
        for some, own in zip(torch.split(z, CHUNK), torch.split(labels, CHUNK), strict=True):
            images.append(sigmoid(self.decoder(some, *label_inputs(part, own))))
        return torch.cat(images)


def current_model(engine: Engine, step: int) -> Model:
    """Return the networks of a training after a step, for use inside `evaluating`."""
    encoder = engine.network_for_sampling("encoder") if "encoder" in engine.networks else None
    decoder = engine.network_for_sampling("decoder")
    latents = _known(engine.latents.state())
    return Model(
        engine.recipe, step, encoder=encoder, decoder=decoder, discriminator=None, **latents
    )


def _known(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the fields of a `Model` in stored latents, without labels that are not all known."""
    names = {"codes", "labels", "kl"} & {*latents}
    if "labels" in names and (latents["labels"] < 0).any():
        names.remove("labels")
    return {name: latents[name] for name in names}


def labels_in_turn(n: int, recipe: Recipe, device: torch.device) -> Tensor:
    """[n]  Each label in turn: 0, 1, ... classes - 1, 0, and so on."""
    return torch.arange(n, device=device) % max(recipe.image.classes, 1)


def load(
    run: Run | str | Path | int | None = None,
    device: torch.device | str | None = None,
    networks: tuple[str, ...] = NETWORKS,
    *,
    best: bool = False,
    step: int | None = None,
) -> Model:
    """Load a run's newest checkpoint, the best one by `eval.best`, or that of a step.

    `run` is a path, a number or a name; None is the newest run. It may also be a folder that
    `vgx export` wrote, or the name of such a model on the hub, "owner/name", whose files are
    fetched once. `device` is "cpu", "cuda" or another one of this machine; None is a GPU with CUDA
    if there is one, else the CPU. Raises `StorageError` when there is no run, or no undamaged
    checkpoint, and `HubError` for a model that cannot be fetched.
    """
    run = located(run)
    recipe = load_recipe(run.recipe_file, (), registry_of(run))
    return load_model(run, recipe, device, networks, best=best, step=step)


def located(run: Run | str | Path | int | None) -> Run:
    """Return a run, or an exported folder as one; that of a model of the hub is fetched."""
    if isinstance(run, str) and hub.is_name(run):
        folder = hub.model_folder(run)
        if not exported.is_exported(folder):
            message = "an autoencoder of diffusers, which has no recipe"
            raise StorageError(f"{run}: {message}; make a run of it: vgx import {run}")
        return Run(folder)
    return find(run)


def load_model(
    run: Run,
    recipe: Recipe,
    device: torch.device | str | None,
    networks: tuple[str, ...] = NETWORKS,
    *,
    best: bool = False,
    step: int | None = None,
) -> Model:
    """Load some networks of a run whose recipe is loaded already."""
    device = pick_device(device)
    if best and step is not None:
        raise RecipeError(f"{run.path}: the best checkpoint or that of step {step}: choose one")
    if exported.is_exported(run.path):
        path, state = run.path, exported.load(run.path)
        if step not in (None, here := state.numbers["step"]):
            raise StorageError(f"{path}: an exported model, which has step {here:,} alone")
    else:
        path, state = checkpoint.load(run) if step is None else checkpoint.load_step(run, step)
    if best:
        path, state = _best(run, recipe, state)
    loaded: dict[str, nn.Module | None] = dict.fromkeys(NETWORKS)
    for name in networks:
        network = build_network(untrained(recipe), name)
        if network is None:
            continue
        averaged = checkpoint.under(state.model, f"average.module.{name}")
        weights = averaged or checkpoint.under(state.model, name)
        if name == "discriminator" and not weights and state.numbers.get("imported"):
            continue  # it was left out of the export
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            message = f"{path}: does not fit the {name} of the recipe: {error}\n{OTHER_VERSION}"
            raise StorageError(message) from error
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loaded[name] = network.eval().requires_grad_(False)
    codes = state.latents.get("codes")
    if codes is None or codes.shape[1:] != recipe.latent.shape or not codes.is_floating_point():
        raise StorageError(f"{path}: its latents do not have the recipe's shape")
    latents = {name: tensor.to(device) for name, tensor in _known(state.latents).items()}
    return Model(recipe, state.numbers["step"], **latents, **loaded)  # type: ignore[arg-type]


def _best(run: Run, recipe: Recipe, newest: checkpoint.State) -> tuple[Path, checkpoint.State]:
    name = recipe.eval.best
    if name is None:
        raise RecipeError(f"{run.path}: the recipe has no eval.best, so no checkpoint is the best")
    measured = measured_until(run, newest.numbers, recipe.eval.better)
    if name not in measured:
        raise StorageError(f"{run.path}: nothing was measured yet, so no checkpoint is the best")
    return checkpoint.load_step(run, measured[name].best.step)
