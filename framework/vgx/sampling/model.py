"""A trained run as a model: its networks in evaluation mode, and its stored latents.

Letters: N images, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgx.engine.build import (
    at_least_float32,
    build_network,
    encoder_inputs,
    label_inputs,
    pick_device,
    sigmoid,
    untrained,
)
from vgx.engine.engine import Engine
from vgx.engine.losses import build_losses
from vgx.errors import Notice, RecipeError, StorageError
from vgx.notebook import html
from vgx.parts.kinds import Quantising
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, exported, hub
from vgx.runs.best import measured_until
from vgx.runs.checkpoint import OTHER_VERSION
from vgx.runs.directory import Run, find
from vgx.runs.trust import registry_of
from vgx.second import kept
from vgx.step import Posterior

NETWORKS = ("encoder", "decoder", "discriminator")
LOSS = "loss "  # what the name of a loss with weights begins with in a checkpoint
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
    # Those of a recipe with several, by "discriminator NAME".
    discriminators: Mapping[str, nn.Module] = field(default_factory=dict)
    known: exported.Scale = field(default_factory=exported.Scale)  # of an exported one's latents
    prior: Any = None  # the module of the second stage, once it is trained
    sha256: str = ""  # of the file with the weights
    open_losses: Callable[[], Mapping[str, nn.Module]] = dict

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that were loaded."""
        return [*self.by_name.values()]

    @property
    def by_name(self) -> dict[str, nn.Module]:
        """The networks that were loaded, by their names in checkpoints."""
        single = {name: getattr(self, name) for name in NETWORKS}
        return {name: n for name, n in single.items() if n is not None} | {**self.discriminators}

    @property
    def losses(self) -> Mapping[str, nn.Module]:
        """What the losses with weights built, by label; loaded at each access.

        An exported model has those that its recipe's sampler needs. Raises `StorageError`.
        """
        return self.open_losses()

    @property
    def latent_mean(self) -> Tensor:
        """[C, 1, ...]  The mean of the stored latents by channel; 0 where nothing is known of them.

        Of an exported model it is the one that `vgx.json` has.
        """
        shift = self.known.get("shift_factor", 0.0)
        return self._by_channel(lambda codes: codes.mean(1), "mean", shift)

    @property
    def latent_std(self) -> Tensor:
        """[C, 1, ...]  The deviation of the stored latents by channel, as `latent_mean`; else 1."""
        scale = self.known.get("scaling_factor") or 1.0
        return self._by_channel(lambda codes: codes.std(1, correction=0), "std", 1 / scale)

    def _by_channel(
        self, of_codes: Callable[[Tensor], Tensor], name: Literal["mean", "std"], default: float
    ) -> Tensor:
        channels, *places = self.recipe.latent.shape
        if len(self.codes) >= 2:
            values = of_codes(self.codes.movedim(1, 0).flatten(1))  # [C]
        else:
            listed = self.known.get(name, [])
            listed = listed if len(listed) == channels else [default] * channels
            values = torch.tensor(listed, device=self.codes.device)
        return values.float().reshape(channels, *[1] * len(places))

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
        parts = self.recipe.networks
        return [
            (name, parts[name].type, sum(p.numel() for p in network.parameters()))
            for name, network in self.by_name.items()
        ]

    @torch.no_grad()
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, *Z]  The posterior means of images [N, C, H, W] in [0, 1], on the model's device.

        A conditional encoder also needs their `labels` [N].
        """
        parts = torch.split(images, CHUNK)
        own = [None] * len(parts) if labels is None else torch.split(labels, CHUNK)
        pairs = zip(parts, own, strict=True)
        return torch.cat([self.posterior(part, some).mean for part, some in pairs])

    @torch.no_grad()
    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        """Return the posterior over [N, *Z] of images [N, C, H, W] in [0, 1], all at once.

        A conditional encoder also needs their `labels` [N].
        """
        part, device = self.recipe.encoder, self.codes.device
        if part is None or self.encoder is None:
            raise RecipeError(f"{self.recipe.name} has no encoder")
        if part.conditional and labels is None:
            text = f"{self.recipe.name}: the encoder {part.type} takes labels"
            raise RecipeError(f"{text}; give those of the images: model.encode(images, labels)")
        labels = None if labels is None else labels.to(device)
        further = encoder_inputs(part, labels, self.decoder)
        posterior: Posterior = self.encoder(images.to(device), *further)
        return posterior

    def latents_of(self, codes: Tensor) -> Tensor:
        """[N, *Z]  The latents of codes that the prior draws: latents already, or indices."""
        if self.recipe.prior is None or self.recipe.prior.of == "latents":
            return codes
        assert isinstance(self.encoder, Quantising)  # or there would be no such prior
        return self.encoder.from_indices(codes)

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  Images in [0, 1] of latents [N, *Z], on the model's device.

        A conditional decoder also gets `labels` [N]; by default each class in turn.
        """
        labels = labels_in_turn(len(z), self.recipe, z.device) if labels is None else labels
        pairs = zip(torch.split(z, CHUNK), torch.split(labels, CHUNK), strict=True)
        return torch.cat([sigmoid(self.decode_logits(some, own)) for some, own in pairs])

    @torch.no_grad()
    def decode_logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  The decoder's logits of latents [N, *Z], all at once, in float32."""
        if labels is None:
            labels = labels_in_turn(len(z), self.recipe, z.device)  # [N]
        device = self.codes.device
        further = label_inputs(self.recipe.decoder, labels.to(device))
        return at_least_float32(self.decoder(z.to(device), *further))


def current_model(engine: Engine, step: int) -> Model:
    """Return the networks of a training after a step, for use inside `evaluating`."""
    encoder = engine.network_for_sampling("encoder") if "encoder" in engine.networks else None
    decoder = engine.network_for_sampling("decoder")
    names = engine.recipe.judges.keys() & engine.networks.keys()
    named = {name: engine.networks[name] for name in sorted(names - {"discriminator"})}
    latents: dict[str, Any] = _known(engine.latents.state())
    return Model(
        engine.recipe,
        step,
        encoder=encoder,
        decoder=decoder,
        discriminator=engine.networks.get("discriminator"),
        discriminators=named,
        open_losses=partial(_of_losses, engine.networks),
        **latents,
    )


def _of_losses(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the modules of losses among the networks of a training, by label."""
    own = {name: each for name, each in networks.items() if name.startswith(LOSS)}
    return {name.removeprefix(LOSS): each for name, each in own.items()}


def _load_losses(
    recipe: Recipe, path: Path, weights: dict[str, Tensor], device: torch.device
) -> dict[str, nn.Module]:
    """Return the modules of losses whose weights are given, by label."""
    named = {part.label: checkpoint.under(weights, f"{LOSS}{part.label}") for part in recipe.losses}
    parts = tuple(part for part in untrained(recipe).losses if named[part.label])
    losses: dict[str, nn.Module] = {}
    for part, module in build_losses(recipe.model_copy(update={"losses": parts})):
        assert isinstance(module, nn.Module)  # or it would have no weights
        _load_weights(module, named[part.label], path, f"loss {part.label}")
        losses[part.label] = module.to(device).eval().requires_grad_(False)
    return losses


def _load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path, name: str) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        message = f"{path}: does not fit the {name} of the recipe: {error}\n{OTHER_VERSION}"
        raise StorageError(message) from error


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
    loaded: dict[str, Any] = {**dict.fromkeys(NETWORKS), "discriminators": {}}
    beside = recipe.encoder is not None and recipe.encoder.uses_decoder and "encoder" in networks
    wanted = dict.fromkeys((*networks, "decoder") if beside else networks)
    for name in (name for each in wanted for name in recipe.named(each)):
        network = build_network(untrained(recipe), name)
        assert network is not None  # the recipe has this network
        averaged = checkpoint.under(state.model, f"average.module.{name}")
        weights = averaged or checkpoint.under(state.model, name)
        if name in recipe.judges and not weights and state.numbers.get("imported"):
            continue  # it was left out of the export
        _load_weights(network, weights, path, name)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        place = loaded if name in NETWORKS else loaded["discriminators"]
        place[name] = network.eval().requires_grad_(False)
    codes = state.latents.get("codes")
    if codes is None or codes.shape[1:] != recipe.latent.shape or not codes.is_floating_point():
        raise StorageError(f"{path}: its latents do not have the recipe's shape")
    loaded |= {name: tensor.to(device) for name, tensor in _known(state.latents).items()}
    known = state.numbers.get("latents")
    scale = exported.scale_of(known if isinstance(known, dict) else {})
    # Only who decodes draws with a prior.
    prior = _prior(run, recipe, state.sha256, device) if "decoder" in networks else None
    of_losses = {name: tensor for name, tensor in state.model.items() if name.startswith(LOSS)}
    return Model(
        recipe,
        state.numbers["step"],
        known=scale,
        prior=prior,
        sha256=state.sha256,
        open_losses=partial(_load_losses, recipe, path, of_losses, device),
        **loaded,
    )


def _prior(run: Run, recipe: Recipe, sha256: str, device: torch.device) -> nn.Module | None:
    """Return the trained prior of a run or an exported folder; None, with a notice, if it fails."""
    try:
        prior = kept.load(run.path, recipe, sha256)
    except StorageError as error:
        text = f"the prior is left out: {error}; train it again: vgx fit {run.short}"
        warnings.warn(text, Notice, stacklevel=2)
        return None
    return prior and prior.to(device)


def _best(run: Run, recipe: Recipe, newest: checkpoint.State) -> tuple[Path, checkpoint.State]:
    name = recipe.eval.best
    if name is None:
        raise RecipeError(f"{run.path}: the recipe has no eval.best, so no checkpoint is the best")
    measured = measured_until(run, newest.numbers, recipe.eval.better)
    if name not in measured:
        raise StorageError(f"{run.path}: nothing was measured yet, so no checkpoint is the best")
    return checkpoint.load_step(run, measured[name].best.step)
