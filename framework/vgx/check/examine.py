"""What can be known about a run before its first step.

Shapes, ranges, finite values and losses are checked on one small batch; then comes the audit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from vgx import rng
from vgx.check import audit
from vgx.check.attempt import keeping_buffers, values_of_terms
from vgx.check.audit import Finding
from vgx.check.blame import Working, blaming, responsible, working
from vgx.check.changing import try_changing
from vgx.check.hidden_state import watching_state
from vgx.check.metrics import try_metrics_of_model
from vgx.check.networks import mixes_images, try_augmentations, try_networks, try_sampler
from vgx.check.prior import try_prior
from vgx.check.terms import Tried, try_terms
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.distributed.minibatch import shared
from vgx.distributed.state import group
from vgx.engine import memory
from vgx.engine.engine import Engine
from vgx.errors import PluginError, RecipeError
from vgx.parts.base import BrokenError
from vgx.parts.contract import documentation_faults
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe
from vgx.step import Step

FEW_TRAINED = 0.1  # share of a network's parameters; a note says when fewer are trained


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


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

    def show(self, console: Console) -> None:
        """Print the networks, the losses of the first batch, the gradient norms and the notes."""
        console.table(*self.networks)
        console.print(self.first_losses)
        console.table(*self.norms)
        for note in self.notes:
            console.print(note)

    @property
    def networks(self) -> Table:
        """A header and a row for each network."""
        rows: list[tuple[str, ...]] = [
            (row.network, row.part, row.shapes, f"{row.parameters:,}", f"{row.trained:,}")
            for row in self.rows
        ]
        return ("network", "part", "shapes", "parameters", "trained"), rows

    @property
    def norms(self) -> Table:
        """A header and a row for each term: the norms of its gradient in each network."""
        names = list(self.flows[0].norms) if self.flows else []
        norms = [[flow.norms[name] for name in names] for flow in self.flows]
        cells = [("-" if norm is None else f"{norm:.3g}" for norm in row) for row in norms]
        rows = [(flow.label, *row) for flow, row in zip(self.flows, cells, strict=True)]
        return ("gradient norm of", *names), rows

    @property
    def first_losses(self) -> str:
        """The unweighted losses as one line."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        return f"Losses of the first batch: {losses}"


def examine(
    engine: Engine, registry: Registry, batch: Batch, reads: set[tuple[int, str]] | None = None
) -> Findings:
    """Check everything on one batch: first the contracts of the parts, then the audit.

    `reads` are the attributes of parts that were read while everything was built; without them the
    audit does not look for values that nothing reads. The engine is left unchanged. Raises
    `RecipeError`, or `PluginError` that names the part.
    """
    recipe, train, parts_at_work = engine.recipe, engine.recipe.train, working(engine)
    engine.forward.at(0)
    with blaming(registry, parts_at_work):
        with (
            _unchanged(engine),
            watching_state(parts_at_work) as hidden,
            rng.ambient(train.seed, "check"),
        ):
            faults = [*try_augmentations(engine, batch.images), *try_networks(engine, batch)]
            step, detached, forward, need = _try_forward(engine, batch)
            tried = try_terms(engine, {"generator": step, "discriminator": detached})
            flows, of_terms = audit.measure(engine, tried.values, step, detached)
            notes = list(_across_images(engine, batch, tried))
            piece = train.batch // group().size // train.accumulate
            if piece != len(batch) or group().size > 1:
                _try_piece(engine, _repeated(batch, piece), len(batch), parts_at_work)
            faults += try_changing(engine, step)
        faults += [*try_prior(engine, step), *try_sampler(engine, step)]
        try_metrics_of_model(engine)
    faults = [*hidden, *_not_of_state([*faults, *tried.findings, *of_terms], hidden)]
    if reads is not None:
        faults += audit.unread(recipe, reads)
    rows = _rows(engine, step)
    of_networks = _notes_of_networks(engine, rows, step)
    notes = [*_notes_of_parts(recipe), *of_networks, *tried.notes, *notes]
    notes += [note for v in tried.values if (note := audit.never_counts(v.term, engine.steps))]
    notes += audit.allowed(recipe, faults)
    losses = {value.term.label: value.value.item() for value in tried.values}
    return Findings(rows, losses, flows, notes, forward, need)


def _not_of_state(faults: list[Finding], hidden: list[Finding]) -> Iterator[Finding]:
    """Leave out findings of random numbers in parts that keep state, which explains them."""
    for fault in faults:
        kind, _, name = fault.name.partition(":")
        keeps = any(found.name.startswith(f"hidden-state:{name}.") for found in hidden)
        if kind != "random" or not keeps:
            yield fault


def _repeated(batch: Batch, images: int) -> Batch:
    """Return a batch of so many images: these again and again."""
    rows = torch.arange(images, device=batch.images.device) % len(batch)
    labels = None if batch.labels is None else batch.labels[rows]
    return Batch(batch.images[rows], labels)


@contextmanager
def _unchanged(engine: Engine) -> Iterator[None]:
    """Restore buffers after the block, and raise `PluginError` when a loss changed a weight."""
    networks = engine.networks.items()
    weights = [(name, p, p._version) for name, network in networks for p in network.parameters()]  # noqa: SLF001
    augmentations = engine.forward.saved_augmentations.values()
    with keeping_buffers([*engine.networks.values(), *augmentations]):
        yield
    engine.forward.logits.clear()  # the log shows those of the training alone
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


def _try_piece(engine: Engine, batch: Batch, tried: int, parts: Working) -> None:
    """Run as many images forward as a process has of a piece of a minibatch, as the training will.

    Raises `RecipeError` when that fails, although it worked with the `tried` images of the first
    batch: one is too few for BatchNorm, for instance.
    """
    try:
        with shared(len(batch)):
            for term, value in values_of_terms(engine, batch):
                if value is not None and not value.isfinite():
                    raise BrokenError(term.part, "its value is not finite")
    except Exception as error:
        # Of several processes, draws that they cannot share are refused, however many images.
        if memory.is_out_of_memory(error) or (group().size > 1 and isinstance(error, RecipeError)):
            raise
        part, train = responsible(error, parts), engine.recipe.train
        fewer = [n for n in range(1, train.accumulate) if train.batch % (n * group().size) == 0]
        instead = f"train.accumulate={fewer[-1]}" if fewer else "a larger train.batch"
        field, what = ("accumulate", "a piece") if fewer else ("batch", "a minibatch")
        name = f"the {part.kind} '{part.type}'" if part else "the networks and losses"
        images = f"{len(batch)} image" + "s" * (len(batch) > 1)
        images += " in each process" * (group().size > 1)
        works = f"is too small for {name}, which works with more"
        if len(batch) > tried:
            works = f"fails in {name}, which works with {tried}"
            instead = "another train.batch or train.accumulate"
        message = f"train.{field}: {what} of {images} {works}: {error}; write {instead}"
        raise RecipeError(message) from error


# --- notes ---------------------------------------------------------------------------------------


def _notes_of_parts(recipe: Recipe) -> Iterator[str]:
    given = [part.note(recipe.image) for part in (*recipe.networks.values(), *recipe.losses)]
    given += [loss.note_beside(recipe.losses, recipe.image) for loss in recipe.losses]
    yield from filter(None, given)
    for place, part in audit.parts_of(recipe):
        for fault in documentation_faults(part):
            yield f"{place}: {part.kind} '{part.type}': {fault}"


def _notes_of_networks(engine: Engine, rows: list[Row], step: Step) -> Iterator[str]:
    for name, logits in audit.logits_of(engine, step).items():
        height, width = logits.shape[2:] or (1, 1)
        if logits.dim() == 4 and (width > 1 or height == 1):  # a column: patches of several grids
            yield f"The {name} scores a grid of {height}x{width} patches."
    for row in rows:
        if 0 < row.trained < FEW_TRAINED * row.parameters:
            yield (
                f"The {row.network} trains only {row.trained:,} of its {row.parameters:,} "
                "parameters, and the others are frozen: its features will not adapt to the images."
            )


def _across_images(engine: Engine, batch: Batch, tried: Tried) -> Iterator[str]:
    """Note where images of a minibatch influence each other, and that nothing reads the labels."""
    recipe, train = engine.recipe, engine.recipe.train
    penalties = [value.term for value in tried.values if value.takes_gradients]
    penalties = [term for term in penalties if term.player == "discriminator"]
    for name in recipe.judges if len(batch) > 1 else ():
        slopes = [term.label for term in penalties if recipe.judge_of(term.part) == name]
        if slopes and mixes_images(engine, name, batch):
            yield (
                f"{' and '.join(slopes)}: in the {name} the score of an image depends on the "
                "others of its minibatch, so its slope is not that of one image: in place of "
                "BatchNorm, use another normalisation, or none."
            )
    if train.accumulate > 1:
        terms = [v.term for v in tried.values if v.across_batch or v.term.adaptive or v.term.share]
        names = [term.label for term in terms]
        names += [name for name in recipe.networks if mixes_images(engine, name, batch)]
        if names:
            pieces = f"train.accumulate={train.accumulate}: the {train.accumulate} pieces"
            yield (
                f"{pieces} of a minibatch are computed one after another, and these look across "
                f"the {train.batch // train.accumulate} images of a piece where they would look "
                f"across {train.batch}: {', '.join(names)}."
            )
    if recipe.image.classes > 1 and not recipe.conditional and not tried.reads_labels:
        yield (
            f"The images have labels of {recipe.image.classes} classes, and no network and no loss "
            "reads them: use networks that take labels, or leave image.classes out."
        )


# --- the table of networks -----------------------------------------------------------------------


def _rows(engine: Engine, step: Step) -> list[Row]:
    recipe = engine.recipe
    image = "x".join(map(str, step.real.shape[1:]))
    latent = "x".join(map(str, recipe.latent.shape))
    judged = {"images": image, "latents": latent, "pairs": f"{image}, {latent}"}
    shapes = {"encoder": f"{image} -> {latent}", "decoder": f"{latent} -> {image}"}
    for name, logits in audit.logits_of(engine, step).items():
        patches = "x".join(map(str, logits.shape[1:]))
        shapes[name] = f"{judged[recipe.judges[name].judges]} -> {patches}"
    rows = [
        Row(name, part.type, shapes[name], *_counts(engine.networks[name]))
        for name, part in recipe.networks.items()
    ]
    for part, module in engine.losses:
        if part.critic and isinstance(module, nn.Module):
            rows.append(Row(f"loss {part.label}", "critic", "", *_counts(module)))
    return rows


def _counts(network: nn.Module) -> tuple[int, int]:
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
