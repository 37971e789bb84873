"""One step of a run once more: its images, its terms, its gradients, and the discriminator's view.

Everything is computed as in `Engine.step`, from the checkpoint before; the losses equal the log.

Letters: B images of a minibatch, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.build import build_network, untrained
from vgx.engine.engine import Engine
from vgx.engine.forward import Forward
from vgx.engine.losses import Losses, PlayerName, weighted_losses
from vgx.engine.players import Gradients, Player, add_gradients, is_trained_by
from vgx.errors import StorageError, noticing
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.rng import Streams
from vgx.runs import checkpoint, reading
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, find
from vgx.runs.moved import Command
from vgx.runs.trust import registry_of
from vgx.step import Gaussian, Step
from vgx.training.session import rebuild
from vgx.training.state import Training
from vgx.training.verify import difference

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass
class TermRecord:
    """One player's term in the step."""

    label: str
    player: PlayerName
    weights: list[float] = field(default_factory=list)  # of each piece of the minibatch
    value: float = 0.0  # unweighted, as in the log
    gradients: Gradients = field(default_factory=dict)  # of the unweighted term, by parameter

    @property
    def weight(self) -> float:
        """The mean of its weights, with the ratios of an adaptive weight or a share."""
        return sum(self.weights) / len(self.weights)

    def norms(self, networks: Sequence[str]) -> dict[str, float | None]:
        """Return the norm of its gradient in each network; None where it trains nothing."""
        inside = {
            name: [g for key, g in self.gradients.items() if key.startswith(f"{name}.")]
            for name in networks
        }
        return {
            name: torch.stack([g.double().norm() for g in found]).norm().item() if found else None
            for name, found in inside.items()
        }


@dataclass
class Replay:
    """A step of a run, computed once more."""

    step: int
    start: int  # the step of the checkpoint from which it was computed; 0 is the very beginning
    networks: tuple[str, ...]
    rows: list[list[int]]  # numbers of its images in the store, by minibatch
    logged: dict[str, float] | None  # its losses in the log, if it was logged
    terms: dict[str, TermRecord] = field(default_factory=dict)
    differs: str = ""  # the first loss since the checkpoint that is not the log's
    # Of the minibatch that trained the generator, by name: images and maps [B, C, H, W] in [0, 1]
    # and [B, H, W], latents, logits [B].
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)

    def keep(self, name: str, value: Tensor) -> None:
        """Keep the values of a piece of the minibatch."""
        self.tensors.setdefault(name, []).append(value.detach().float().cpu())


def replay(
    run: Run | str | Path | int | None,
    step: int,
    recipe: Recipe | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Replay:
    """Do a step of a run again, from the checkpoint before it; nothing is written into the run.

    `recipe` is the run's own, but for the place of its images. Without a checkpoint before the step
    the run is trained again from its beginning. Raises `StorageError` for a step that was not done,
    and for a fork whose checkpoints before the step are gone.
    """
    console, run = console or Console(), find(run)
    recipe = recipe or load_recipe(run.recipe_file, (), registry_of(run))
    state, notices = _state_before(run, step)
    for notice in notices:
        console.warn(notice)
    again = Command(f"vgx replay {run.short} --step {step}", takes_set=False)
    training = rebuild(run, recipe, state, device, console, again=again)
    lines = (entry.line for entry in reading.entries(run.path))
    logged = {
        line["step"]: line["losses"]
        for line in lines
        if line and training.done < line["step"] <= step and line.get("losses")
    }
    start, differs = training.done, ""
    with console.progress("Going to the step", step - start, 0, "steps") as advance:
        while training.done < step - 1:
            terms = training.step()
            differs = differs or difference(training.done, terms, logged.get(training.done, {}))
            advance(1, ())
        training.engine.guard.confirm()
        result = Replay(
            step,
            start,
            tuple(training.engine.networks),
            [training.batches.rows(number).tolist() for number in training.numbers],
            logged.get(step),
        )
        terms = _watched(training, result)
        for label, value in terms.items():
            result.terms[label].value = value.item()
        advance(1, ())
    terms = training.with_paused(terms)
    result.differs = differs or difference(step, terms, logged.get(step, {}))
    return result


def _state_before(run: Run, step: int) -> tuple[State | None, list[str]]:
    """Return the newest state before a step, or None for the very beginning; and notices."""
    last = reading.last_line(run.path) or {"step": 0}
    ended = reading.ended(run.path) or {"how": "done", "step": 0, "of": 0}
    done = max(last["step"], ended["step"], *checkpoint.steps(run))
    done += ended["how"] == "diverged"  # the step that was not finite
    if not 1 <= step <= done:
        raise StorageError(f"{run.path}: its steps are 1 to {done:,}, so {step:,} is none of them")
    parent = (reading.environment(run.path) or {}).get("parent")
    if parent is not None and parent["how"] == "fork" and step <= parent["step"]:
        raise StorageError(
            f"{run.path}: it was forked from {parent['run']} at step {parent['step']:,}, so step "
            f"{step:,} was done there, with the recipe of that run; replay it there"
        )
    notices: list[str] = []
    if any(each < step for each in checkpoint.steps(run)):
        with noticing(notices):
            return checkpoint.load(run, before=step)[1], notices
    if parent is not None and parent["how"] == "fork":
        raise StorageError(
            f"{run.path}: it was forked from {parent['run']} at step {parent['step']:,}, and has "
            f"no checkpoint before step {step:,}; {checkpoint.steps_text(run)}"
        )
    return None, [f"no checkpoint before step {step:,} is there; begins at the first step"]


# --- the step ------------------------------------------------------------------------------------


def _watched(training: Training, result: Replay) -> dict[str, Tensor]:
    """Do the next step as `Engine.step` does, and keep what it computes; return its terms."""
    engine, number = training.engine, training.done
    batches = [training.batches[index] for index in training.numbers]
    terms: dict[str, Tensor] = {}
    with rng.ambient(engine.seed, "step", number):
        for index, batch in enumerate(batches):
            for players in engine.turns(index, len(batches)):
                terms |= _update(engine, players, number, index, batch, result)
    return terms


def _update(
    engine: Engine, players: list[Player], number: int, index: int, batch: Batch, result: Replay
) -> dict[str, Tensor]:
    """Do what `Engine.update` does, and keep each term's gradient and the images."""
    terms: dict[str, Tensor] = {}
    gradients: dict[PlayerName, Gradients] = {}
    micro_batches = batch.chunk(engine.recipe.train.accumulate)
    train_generator = engine.players["generator"] in players
    for term in (term for player in players for term in player.terms):
        result.terms.pop(term.label, None)  # of several minibatches the last one counts
    options = {"train_generator": train_generator, "lazy": engine.lazy(players, number)}
    for position, micro_batch in enumerate(micro_batches):
        streams = engine.streams(number, index, position)
        judges = _copied_judges(engine) if train_generator and not options["lazy"] else None
        step = engine.forward(micro_batch, number, streams, **options)
        if train_generator:
            _keep(micro_batch, step, judges, streams, result)
        engine.observe(players, step)
        for player in players:
            if player is not players[0]:
                step = engine.forward.for_discriminator(step, streams)
            losses = weighted_losses(player.terms, step, engine.last_layer)
            for label, value in losses.terms.items():
                terms[label] = terms.get(label, 0) + value.detach() / len(micro_batches)
            _keep_terms(player, losses, number, len(micro_batches), result)
            keep_graph = player is not players[-1]
            for new in player.gradients(losses, len(micro_batches), keep_graph=keep_graph):
                gradients[player.name] = add_gradients(gradients.get(player.name, {}), new)
    for name, summed in gradients.items():
        engine.players[name].step_optimizer(number, summed, engine.lr_scale, None)
    return terms


def _keep_terms(player: Player, losses: Losses, number: int, count: int, result: Replay) -> None:
    for term in player.terms:
        value = losses.terms.get(term.label)
        if value is None:
            continue
        record = result.terms.setdefault(term.label, TermRecord(term.label, player.name))
        ratio = losses.ratios.get(term.label)
        record.weights.append(term.weight(number) * (1.0 if ratio is None else ratio.item()))
        named = {n: p for n, p in player.trained.items() if is_trained_by(n, term.reaches)}
        if value.requires_grad and named:
            found = torch.autograd.grad(
                value / count, [*named.values()], retain_graph=True, allow_unused=True
            )
            pairs = zip(named, found, strict=True)
            new = {name: gradient for name, gradient in pairs if gradient is not None}
            record.gradients = add_gradients(record.gradients, new)


# --- what is shown -------------------------------------------------------------------------------


def _keep(
    batch: Batch, step: Step, judges: Forward | None, streams: Streams, result: Replay
) -> None:
    """Keep the images of a pass, its latents, and what each image discriminator says of them."""
    result.keep("data", batch.images)
    result.keep("real", step.real)
    result.keep("z", step.z)
    if batch.labels is not None:
        result.keep("labels", batch.labels)
    if step.has("posterior") and isinstance(step.posterior, Gaussian):
        result.keep("mu", step.posterior.mu)
        result.keep("logvar", step.posterior.logvar)
    for name in ("recon", "prior"):
        if step.has(name):
            result.keep(name, getattr(step, name))
    if judges is None:
        return
    for network in judges.judges:
        about = network.partition(" ")[2]
        own, among = step.about(about), f", {about}" if about else ""
        scores = {"real": own.real_score.logits}
        kinds = own.fake_score.logits.chunk(len(step.fakes))
        scores |= dict(zip(step.fakes, kinds, strict=True))
        for name, logits in scores.items():
            result.keep(f"logit of {name}{among}", logits.flatten(1).mean(1))
        real = _looked_at(judges, network, step.real, step, streams, "real")
        result.keep(f"map of real{among}", real)
        fakes = _looked_at(judges, network, step.fake, step, streams, "fake")  # [F*B, H, W]
        for name, found in zip(step.fakes, fakes.chunk(len(step.fakes)), strict=True):
            result.keep(f"map of {name}{among}", found)


def _copied_judges(engine: Engine) -> Forward | None:
    """Return copies of the image discriminators as they are now; their use changes nothing.

    They are in training mode, as in the step, but drop nothing out. None if there are none.
    """
    networks: dict[str, nn.Module] = {}
    for name, part in engine.recipe.judges.items():
        network = build_network(untrained(engine.recipe), name)
        if network is None or part.judges != "images":
            continue
        network.load_state_dict(engine.networks[name].state_dict())
        networks[name] = network.to(engine.device, engine.dtype).train()
        for module in network.modules():
            if isinstance(module, DROPOUT):
                module.eval()
    if not networks:
        return None
    forward = Forward(engine.recipe, networks, engine.steps, engine.device, engine.dtype)
    forward.bf16 = engine.forward.bf16
    forward.share_augmentations(engine.forward)
    return forward


def _looked_at(
    judges: Forward, network: str, images: Tensor, step: Step, streams: Streams, stream: str
) -> Tensor:
    """[N, H, W]  How much each pixel of images [N, C, H, W] moves their mean logit.

    The largest of its channels' absolute gradients (Simonyan et al. 2013, section 3.1).
    """
    seed = rng.key(0, "looked at")
    with rng.ambient(seed, stream), torch.enable_grad(), judges.autocast():
        leaf = images.detach().clone().requires_grad_()
        score = judges.score(
            leaf, network=network, labels=step.labels, streams=streams, stream=stream
        )
        mean = score.logits.flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(mean, [leaf])  # [N, C, H, W]
    return gradient.abs().amax(1)
