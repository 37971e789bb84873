"""What can be known before the first step: shapes, sizes, losses that ask for what is absent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check import audit
from vgx.check.hidden_state import holding_still
from vgx.engine import memory
from vgx.engine.build import Player, plays
from vgx.engine.engine import Engine
from vgx.errors import PluginError, RecipeError, VgxError
from vgx.parts.kinds import Fitted, Loss
from vgx.parts.registry import Registry
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
    flows: list[audit.Flow]
    notes: list[str]
    forward: float  # seconds that a picture took forwards through all networks
    need: memory.Need


def examine(
    engine: Engine,
    registry: Registry,
    real: Tensor,
    labels: Tensor | None = None,
    reads: set[tuple[int, str]] | None = None,
) -> Findings:
    """Push one batch of images [B, C, H, W], labels [B], through: contracts first, then the audit.

    `reads` are the attributes of parts that were read while all was built; without them values that
    nothing reads are not looked for. Nothing of the engine changes. Raises `RecipeError` or
    `PluginError` that names the part.
    """
    recipe = engine.recipe
    still = holding_still(engine)
    with _unchanged(engine), still as hidden, rng.ambient(recipe.train.seed, "check"):
        _try_networks(engine, registry, real, labels)
        with memory.kept(engine.networks.values()) as kept:
            step = engine.play(0, real, labels=labels)
        need = memory.needed(engine.networks.values(), sum(kept.values()), len(real), engine.device)
        need.hold(recipe.train.batch, recipe.train.accumulate)
        start = _now(engine.device)
        held = engine.play(0, real, learn=False, labels=labels)
        forward = (_now(engine.device) - start) / len(real)
        for name in ("z", "recon", "recon_logits", "prior"):
            if (image := getattr(held, name)) is not None:
                image.requires_grad_()
        halves = _halves(engine, registry, {"generator": step, "discriminator": held})
        flows, faults = audit.measure(engine, halves, held)
    _try_sampler(engine, registry)
    faults += hidden
    if reads is not None:
        faults += audit.unread(recipe, reads)
    parts = [recipe.encoder, recipe.decoder, recipe.discriminator, *recipe.losses]
    notes = [note for part in parts if part is not None and (note := part.note(recipe.image))]
    if isinstance(step.real_score, Score) and step.real_score.logits.dim() == 4:
        height, width = step.real_score.logits.shape[2:]
        notes.append(f"The discriminator judges a grid of {height}x{width} patches.")
    notes += [note for half in halves if (note := audit.idle(half, engine.steps))]
    notes += audit.judge(recipe, faults)
    losses = {half.label: half.value.item() for half in halves}
    return Findings(_rows(engine, step), losses, flows, notes, forward, need)


def _now(device: torch.device) -> float:
    """Return the time in seconds when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def _unchanged(engine: Engine) -> Iterator[None]:
    """Put buffers back after the block, and see that no part moved a weight in it."""
    tensors = [(name, network) for name, network in engine.networks.items()]
    buffers = [(b, b.clone()) for _, network in tensors for b in network.buffers()]
    weights = [(name, p, p._version) for name, network in tensors for p in network.parameters()]  # noqa: SLF001
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)
    for name, parameter, version in weights:
        moved, parameter_grad = parameter._version != version, parameter.grad  # noqa: SLF001
        parameter.grad = None
        if moved or parameter_grad is not None:
            what = "changed a weight" if moved else "called backward()"
            message = (
                f"one of {', '.join(loss.label for loss in engine.recipe.losses)} {what} of the "
                f"{name}: a loss returns its value and moves nothing; the engine does that"
            )
            raise PluginError(message)


def _try_networks(engine: Engine, registry: Registry, real: Tensor, labels: Tensor | None) -> None:
    recipe = engine.recipe
    shape, latent = tuple(real.shape), (len(real), *recipe.latent.shape)
    augmented = real.to(engine.dtype)
    changes = [*zip(recipe.augment, engine.augment, strict=True)]
    changes += zip(recipe.diff_augment, engine.diff_augment, strict=True)
    for part, change in changes:
        changed = _asked(part, registry, change, augmented, engine.chance("check"))
        _expect(part, registry, "an augmented batch", changed, shape)
        low, high = changed.min().item(), changed.max().item()
        if low < -1e-3 or high > 1 + 1e-3:
            _blame(part, registry, f"pictures leave [0, 1]: they go from {low:.3g} to {high:.3g}")
        augmented = changed.detach()
    z = torch.zeros(latent, device=engine.device, dtype=engine.dtype)
    if recipe.encoder is not None:
        posterior = _asked(recipe.encoder, registry, engine.networks["encoder"], augmented)
        mean = getattr(posterior, "mean", None)
        _expect(recipe.encoder, registry, "the posterior's mean", mean, latent)
    told = (labels,) if recipe.decoder.conditional else ()
    images = _asked(recipe.decoder, registry, engine.networks["decoder"], z, *told)
    _expect(recipe.decoder, registry, "the logits", images, shape)
    if recipe.discriminator is not None:
        network = engine.networks["discriminator"]
        told = (labels,) if recipe.discriminator.conditional else ()
        score = _asked(recipe.discriminator, registry, network, augmented, *told)
        if not isinstance(score, Score):
            _blame(
                recipe.discriminator, registry, f"gives a {type(score).__name__}, not a vgx.Score"
            )
        logits = tuple(score.logits.shape)
        if logits[:2] != (len(real), 1) or len(logits) not in (2, 4):
            message = f"logits are {logits}, not [B, 1, h, w] or [B, 1] with B = {len(real)}"
            _blame(recipe.discriminator, registry, message)
        _expect(recipe.discriminator, registry, "the logits", score.logits, logits)


def _halves(engine: Engine, registry: Registry, steps: dict[Player, Step]) -> list[audit.Half]:
    """Ask every half of every loss, also those of a player that the recipe lacks."""
    halves = []
    for index, (loss, asked) in enumerate(engine.asked):
        both = all(plays(asked, player) for player in steps)
        for player, step in steps.items():
            if not plays(asked, player):
                continue
            value = _value(index, loss, asked, player, step, registry)
            if value is not None:
                label = f"{loss.label}.{player}" if both else loss.label
                ask = partial(getattr(asked, player), step)
                halves.append(audit.Half(label, loss, player, value, ask))
    return halves


def _value(
    index: int, loss: Loss, asked: Any, player: Player, step: Step, registry: Registry
) -> Tensor | None:
    watched = _Watched(step)
    try:
        value: Tensor | None = getattr(asked, player)(watched)
    except Exception as error:
        if watched.missing:
            needs = " and ".join(sorted({_GIVES[name] for name in watched.missing}))
            names = ", ".join(f"step.{name}" for name in watched.missing)
            message = f"losses.{index}: {loss.label} asks for {names}: the recipe needs {needs}"
            raise RecipeError(message) from error
        if isinstance(error, RecipeError):
            raise RecipeError(f"losses.{index}: {loss.label}: {error}") from error
        _blame(loss, registry, f"failed on the first batch: {type(error).__name__}: {error}")
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.dim() or not value.isfinite():
        _blame(loss, registry, f"its {player}'s half is no finite scalar on the first batch")
    return value


def _try_sampler(engine: Engine, registry: Registry) -> None:
    """Draw two latents from stand-ins: a sampler that fails shall not fail after the training.

    There are as many as the run will have; what is fitted gets 1,000 at most, for that takes long.
    """
    recipe, part = engine.recipe, engine.recipe.sampler
    drawer = _asked(part, registry, part.build, recipe.latent)
    source = _asked(part, registry, part.pictures, recipe.image)
    count = min(len(engine.codes), engine.steps * recipe.train.batch)
    count = count if source is None else len(source)
    chance = rng.generator(0, "check")
    given = torch.randn(min(count, 1000), *recipe.latent.shape, generator=chance)
    codes = given[torch.arange(count) % len(given)]  # [K, *Z]
    if isinstance(drawer, Fitted):
        _asked(part, registry, drawer.fit, given)
    z = _asked(part, registry, drawer.draw, 2, codes, rng.generator(0, "check"))
    _expect(part, registry, "the latents", z, (2, *recipe.latent.shape))


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
    except VgxError:
        raise
    except Exception as error:
        if memory.ran_out(error):
            message = f"{part.kind} '{part.type}': not enough memory for the first batch"
            raise RecipeError(f"{message}; {memory.ADVICE}") from error
        _blame(part, registry, f"failed on the first batch: {type(error).__name__}: {error}")


def _expect(
    part: Any, registry: Registry, what: str, given: Any, expected: tuple[int, ...]
) -> None:
    if not isinstance(given, Tensor):
        _blame(part, registry, f"{what}: a {type(given).__name__}, not a tensor")
    if tuple(given.shape) != expected:
        _blame(part, registry, f"{what}: shape {tuple(given.shape)}, not {expected}")
    if not given.isfinite().all():
        _blame(part, registry, f"{what}: not all finite numbers on the first batch")


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
