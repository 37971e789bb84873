"""What can be known before the first step: shapes, sizes, losses that ask for what is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgx.engine import Engine, Player, plays
from vgx.errors import PluginError, RecipeError
from vgx.registry import Registry
from vgx.step import Score, Step

# What must be in the recipe for a step to have something.
_GIVES = {
    "posterior": "an encoder",
    "recon": "an encoder",
    "recon_logits": "an encoder",
    "prior": "'prior' in train.fakes",
    "real_score": "a discriminator",
    "fake_score": "a discriminator",
    "discriminator": "a discriminator",
}


@dataclass(frozen=True)
class Row:
    """One network, as the table shows it."""

    network: str
    part: str
    shapes: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class Findings:
    """What a person sees before the training starts."""

    rows: list[Row]
    losses: dict[str, float]  # unweighted, on the first batch
    notes: list[str]


def examine(engine: Engine, registry: Registry, real: Tensor) -> Findings:
    """Push one batch of images [B, C, H, W] through and hold every part to its contract.

    Nothing of the engine changes. Raises `RecipeError` or `PluginError` that names the part.
    """
    recipe = engine.recipe
    before = [buffer.clone() for buffer in _buffers(engine)]
    try:
        with torch.no_grad():
            step = _played(engine, registry, real)
            losses = _losses(engine, registry, step)
    finally:
        for buffer, old in zip(_buffers(engine), before, strict=True):
            buffer.copy_(old)
    parts = [recipe.encoder, recipe.decoder, recipe.discriminator, *recipe.losses]
    notes = [note for part in parts if part is not None and (note := part.note(recipe.image))]
    if isinstance(step.real_score, Score) and step.real_score.logits.dim() == 4:
        height, width = step.real_score.logits.shape[2:]
        notes.append(f"The discriminator judges a grid of {height}x{width} patches.")
    return Findings(_rows(engine, step), losses, notes)


def _buffers(engine: Engine) -> list[Tensor]:
    return [buffer for network in engine.networks.values() for buffer in network.buffers()]


def _played(engine: Engine, registry: Registry, real: Tensor) -> Step:
    recipe = engine.recipe
    shape, latent = tuple(real.shape), (len(real), *recipe.latent.shape)
    augmented = real.to(engine.dtype)
    for part, change in zip(recipe.augment, engine.augment, strict=True):
        chance = engine._chance("check")  # noqa: SLF001
        augmented = _asked(part, registry, change, augmented, chance)
        _expect(part, registry, "an augmented batch", augmented, shape)
    z = torch.zeros(latent, device=engine.device, dtype=engine.dtype)
    if recipe.encoder is not None:
        posterior = _asked(recipe.encoder, registry, engine.networks["encoder"], augmented)
        mean = getattr(posterior, "mean", None)
        _expect(recipe.encoder, registry, "the posterior's mean", mean, latent)
    images = _asked(recipe.decoder, registry, engine.networks["decoder"], z)
    _expect(recipe.decoder, registry, "the logits", images, shape)
    if recipe.discriminator is not None:
        network = engine.networks["discriminator"]
        score = _asked(recipe.discriminator, registry, network, augmented)
        if not isinstance(score, Score):
            _blame(
                recipe.discriminator, registry, f"gives a {type(score).__name__}, not a vgx.Score"
            )
        logits = tuple(score.logits.shape)
        if logits[:2] != (len(real), 1) or len(logits) not in (2, 4):
            message = f"logits are {logits}, not [B, 1, h, w] or [B, 1] with B = {len(real)}"
            _blame(recipe.discriminator, registry, message)
    return engine.play(0, real)


def _losses(engine: Engine, registry: Registry, step: Step) -> dict[str, float]:
    """Ask every half of every loss, also those of a player that the recipe lacks."""
    values = {}
    players: tuple[Player, ...] = ("generator", "discriminator")
    for index, loss in enumerate(engine.recipe.losses):
        asked = engine.networks.get(f"loss {loss.label}", loss)
        both = all(plays(asked, player) for player in players)
        for player in players:
            watched = _Watched(step)
            half = getattr(asked, player, None)
            try:
                value = half(watched) if half else None
            except Exception as error:
                if watched.missing:
                    needs = " and ".join(sorted({_GIVES[name] for name in watched.missing}))
                    names = ", ".join(f"step.{name}" for name in watched.missing)
                    message = (
                        f"losses.{index}: {loss.label} asks for {names}: the recipe needs {needs}"
                    )
                    raise RecipeError(message) from error
                _blame(
                    loss, registry, f"failed on the first batch: {type(error).__name__}: {error}"
                )
            if value is None:
                continue
            if not isinstance(value, Tensor) or value.dim() or not value.isfinite():
                _blame(
                    loss, registry, f"its {player}'s half is no finite scalar on the first batch"
                )
            values[f"{loss.label}.{player}" if both else loss.label] = value.item()
    return values


class _Watched:
    """A step that notes which absent things were asked for."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.missing: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._step, name)
        if value is None and name not in self.missing:
            self.missing.append(name)
        return value


def _asked(part: Any, registry: Registry, call: Any, *inputs: Any) -> Any:
    try:
        return call(*inputs)
    except Exception as error:  # noqa: BLE001 - whatever it is, the part must be named
        _blame(part, registry, f"failed on the first batch: {type(error).__name__}: {error}")


def _expect(
    part: Any, registry: Registry, what: str, given: Any, expected: tuple[int, ...]
) -> None:
    if not isinstance(given, Tensor):
        _blame(part, registry, f"{what}: a {type(given).__name__}, not a tensor")
    if tuple(given.shape) != expected:
        _blame(part, registry, f"{what}: shape {tuple(given.shape)}, not {expected}")


def _blame(part: Any, registry: Registry, message: str) -> None:
    plugin = registry.owner(type(part))
    whose = f"{part.kind} '{part.type}' of {plugin.distribution} {plugin.version}"
    raise PluginError(f"{whose}: {message}")


def _rows(engine: Engine, step: Step) -> list[Row]:
    recipe = engine.recipe
    image = "x".join(map(str, step.real.shape[1:]))
    latent = "x".join(map(str, recipe.latent.shape))
    patches = ""
    if step.real_score is not None:
        patches = "x".join(map(str, step.real_score.logits.shape[1:]))
    flows = {
        "encoder": (recipe.encoder, f"{image} -> {latent}"),
        "decoder": (recipe.decoder, f"{latent} -> {image}"),
        "discriminator": (recipe.discriminator, f"{image} -> {patches}"),
    }
    return [
        Row(name, part.type, shapes, *_counts(engine.networks[name]))
        for name, (part, shapes) in flows.items()
        if part is not None
    ]


def _counts(network: nn.Module) -> tuple[int, int]:
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
