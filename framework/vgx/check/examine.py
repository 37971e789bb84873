"""What can be known about a run before its first step.

Shapes, ranges, finite values and losses are checked on one small batch; then comes the audit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vgx import rng
from vgx.check import audit
from vgx.check.audit import TermValue
from vgx.check.blame import blaming, working
from vgx.check.hidden_state import watching_state
from vgx.data.batches import Batch
from vgx.engine import memory
from vgx.engine.build import label_inputs
from vgx.engine.engine import Engine
from vgx.engine.losses import terms_of
from vgx.errors import PluginError, RecipeError, VgxError
from vgx.parts.base import BrokenError, Component
from vgx.parts.contract import ContractError, check_score, check_tensor, out_of_range
from vgx.parts.kinds import Fitted
from vgx.parts.registry import Registry
from vgx.step import AbsentError, Step


@dataclass(frozen=True)
class Row:
    """One row of the table of networks."""

    network: str
    part: str
    shapes: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class Findings:
    """The results of the checks, which are printed before the training starts."""

    rows: list[Row]
    losses: dict[str, float]  # unweighted, on the first batch
    flows: list[audit.Flow]
    notes: list[str]
    forward: float  # seconds per image of the forward pass
    need: memory.Need


def examine(
    engine: Engine,
    registry: Registry,
    batch: Batch,
    reads: set[tuple[int, str]] | None = None,
) -> Findings:
    """Check everything on one batch: first the contracts of the parts, then the audit.

    `reads` are the attributes of parts that were read while everything was built; without them the
    audit does not look for values that nothing reads. The engine is left unchanged. Raises
    `RecipeError`, or `PluginError` that names the part.
    """
    recipe = engine.recipe
    parts_at_work = working(engine)
    with blaming(registry, parts_at_work):
        with (
            _unchanged(engine),
            watching_state(parts_at_work) as hidden,
            rng.ambient(recipe.train.seed, "check"),
        ):
            _try_networks(engine, batch)
            step, detached, forward, need = _try_forward(engine, batch)
            values = _try_losses(engine, {"generator": step, "discriminator": detached})
            flows, faults = audit.measure(engine, values, step, detached)
        _try_sampler(engine)
    faults += hidden
    if reads is not None:
        faults += audit.unread(recipe, reads)
    parts = [recipe.encoder, recipe.decoder, recipe.discriminator, *recipe.losses]
    notes = [note for part in parts if part is not None and (note := part.note(recipe.image))]
    beside = (loss.note_beside(recipe.losses, recipe.image) for loss in recipe.losses)
    notes += [note for note in beside if note]
    if step.has("real_score") and step.real_score.logits.dim() == 4:
        height, width = step.real_score.logits.shape[2:]
        if width > 1 or height == 1:  # a column has the patches of several grids
            notes.append(f"The discriminator scores a grid of {height}x{width} patches.")
    notes += [note for value in values if (note := audit.never_counts(value.term, engine.steps))]
    notes += audit.allowed(recipe, faults)
    losses = {value.term.label: value.value.item() for value in values}
    return Findings(_rows(engine, step), losses, flows, notes, forward, need)


@contextmanager
def _unchanged(engine: Engine) -> Iterator[None]:
    """Restore buffers after the block, and raise `PluginError` when a loss changed a weight."""
    networks = engine.networks.items()
    buffers = [(b, b.clone()) for _, network in networks for b in network.buffers()]
    weights = [(name, p, p._version) for name, network in networks for p in network.parameters()]  # noqa: SLF001
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)
    for name, parameter, version in weights:
        changed, gradient = parameter._version != version, parameter.grad  # noqa: SLF001
        parameter.grad = None
        if changed or gradient is not None:
            what = "changed a weight" if changed else "called backward()"
            losses = ", ".join(loss.label for loss in engine.recipe.losses)
            raise PluginError(
                f"one of {losses} {what} of the {name}: a loss returns its value and changes "
                "nothing; the engine does that"
            )


# --- parts, one after another ------------------------------------------------------------------


def _try_networks(engine: Engine, batch: Batch) -> None:
    """Check the outputs of each augmentation and network against its contract."""
    recipe, forward = engine.recipe, engine.forward
    shape, latent = tuple(batch.images.shape), (len(batch), *recipe.latent.shape)
    images = batch.images.to(engine.dtype)
    augmentations = [*zip(recipe.augment, forward.augment, strict=True)]
    augmentations += zip(recipe.diff_augment, forward.diff_augment, strict=True)
    for part, augment in augmentations:
        augmented = _call(part, augment, images, engine.streams()("check"))
        with _contract(part):
            check_tensor("an augmented batch", augmented, shape)
        if fault := out_of_range(augmented):
            raise BrokenError(part, fault)
        images = augmented.detach()
    if recipe.encoder is not None:
        posterior = _call(recipe.encoder, engine.networks["encoder"], images)
        with _contract(recipe.encoder):
            check_tensor("the posterior's mean", getattr(posterior, "mean", None), latent)
    z = torch.zeros(latent, device=engine.device, dtype=engine.dtype)
    labels = label_inputs(recipe.decoder, batch.labels)
    logits = _call(recipe.decoder, engine.networks["decoder"], z, *labels)
    with _contract(recipe.decoder):
        check_tensor("the logits", logits, shape)
    if recipe.discriminator is not None:
        labels = label_inputs(recipe.discriminator, batch.labels)
        network = engine.networks["discriminator"]
        score = _call(recipe.discriminator, network, images, *labels)
        with _contract(recipe.discriminator):
            check_score(score, len(batch))


def _try_forward(engine: Engine, batch: Batch) -> tuple[Step, Step, float, memory.Need]:
    """Return two steps of the batch, the seconds per image of a pass, and the memory it needs.

    The first step leads to all networks. In the second one the fakes are leaves of the graph, so
    what the discriminator's terms do with them can be seen.
    """
    train, networks, streams = engine.recipe.train, engine.networks.values(), engine.streams()
    with memory.saved_for_backward(networks) as saved:
        step = engine.forward(batch, 0, streams)
    need = memory.needed(networks, sum(saved.values()), len(batch), engine.device)
    need.check(train.batch, train.accumulate)
    start = _now(engine.device)
    detached = engine.forward(batch, 0, streams, train_generator=False)
    forward = (_now(engine.device) - start) / len(batch)
    for name in audit.FROM_GENERATOR:
        if detached.has(name):
            getattr(detached, name).requires_grad_()
    return step, detached, forward, need


def _now(device: torch.device) -> float:
    """Return the time in seconds after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _try_losses(engine: Engine, steps: dict[Any, Step]) -> list[TermValue]:
    """Compute every term of every loss, also those of a player that the recipe lacks."""
    values = []
    for index, loss in enumerate(engine.losses):
        for player, step in steps.items():
            for term in terms_of([loss], player):
                try:
                    value = term.value(step)
                except AbsentError as error:
                    message = f"asks for step.{error.name}: the recipe needs {error.needs}"
                    raise RecipeError(f"losses.{index}: {loss[0].label} {message}") from error
                except RecipeError as error:
                    raise RecipeError(f"losses.{index}: {loss[0].label}: {error}") from error
                except BrokenError:
                    raise
                except Exception as error:
                    raise _failed(loss[0], error) from error
                if value is not None and not value.isfinite():
                    message = f"its {player}'s term is not finite on the first batch"
                    raise BrokenError(loss[0], message)
                if value is not None:
                    values.append(TermValue(term, value, step))
    return values


def _try_sampler(engine: Engine) -> None:
    """Draw two latents, so that a sampler does not fail after the training.

    It draws from random latents, as many as the run will store; a fitted sampler gets at most
    1,000, because fitting takes long.
    """
    recipe, part = engine.recipe, engine.recipe.sampler
    sampler = _call(part, part.build, recipe.latent)
    source = _call(part, part.pictures, recipe.image)
    count = min(len(engine.latents.ring), engine.steps * recipe.train.batch)
    count = count if source is None else len(source)
    generator = rng.generator(0, "check")
    different = torch.randn(min(count, 1000), *recipe.latent.shape, generator=generator)
    codes = different[torch.arange(count) % len(different)]  # [K, *Z]
    if isinstance(sampler, Fitted):
        _call(part, sampler.fit, different)
    z = _call(part, sampler.draw, 2, codes, rng.generator(0, "check"))
    with _contract(part):
        check_tensor("the latents", z, (2, *recipe.latent.shape))


def _call(part: Component, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call what a part built. Raises `BrokenError` with the error that it raised."""
    try:
        return function(*inputs)
    except VgxError:
        raise
    except Exception as error:
        raise _failed(part, error) from error


def _failed(part: Component, error: Exception) -> Exception:
    if memory.is_out_of_memory(error):
        message = f"{part.kind} '{part.type}': not enough memory for the first batch"
        return RecipeError(f"{message}; {memory.ADVICE}")
    return BrokenError(part, f"failed on the first batch: {type(error).__name__}: {error}")


@contextmanager
def _contract(part: Component) -> Iterator[None]:
    """Raise `BrokenError` that names the part when its contract is broken in the block."""
    try:
        yield
    except ContractError as error:
        raise BrokenError(part, f"{error} on the first batch") from error


# --- the table of networks -----------------------------------------------------------------------


def _rows(engine: Engine, step: Step) -> list[Row]:
    recipe = engine.recipe
    image = "x".join(map(str, step.real.shape[1:]))
    latent = "x".join(map(str, recipe.latent.shape))
    patches = ""
    if step.has("real_score"):
        patches = "x".join(map(str, step.real_score.logits.shape[1:]))
    shapes = {
        "encoder": f"{image} -> {latent}",
        "decoder": f"{latent} -> {image}",
        "discriminator": f"{image} -> {patches}",
    }
    return [
        Row(name, getattr(recipe, name).type, shapes[name], *_counts(engine.networks[name]))
        for name in shapes
        if name in engine.networks
    ]


def _counts(network: nn.Module) -> tuple[int, int]:
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
