"""A fork: a new run that goes on from a checkpoint of another run, perhaps with other settings.

The new run needs nothing of the old one: it has a copy of its log, its grids and the checkpoint.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vgx.check import trials
from vgx.check.blame import blaming, working
from vgx.check.examine import Findings, examine
from vgx.console import Console
from vgx.data.batches import as_batch
from vgx.engine import memory
from vgx.engine.build import untrained
from vgx.engine.engine import Engine
from vgx.errors import Notice, RecipeError, StorageError
from vgx.files import replacing, require_writable, write_file
from vgx.parts.registry import Registry
from vgx.recipe.lengths import with_length
from vgx.recipe.load import differences, dump_recipe, load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, frames, reading
from vgx.runs.checkpoint import State, under
from vgx.runs.directory import Run, create, find, runs_dir
from vgx.runs.moved import Command
from vgx.runs.trust import registry_of
from vgx.second.fitting import train_all
from vgx.training import environment
from vgx.training.ending import closing
from vgx.training.preparing import CHECKED, configure, require_parts
from vgx.training.resuming import NO_OPTIMIZER
from vgx.training.session import set_to, with_its_images
from vgx.training.signals import signals
from vgx.training.state import Training

# With another value of these, the weights would not fit, or the steps that are done would have been
# taken on other images than the recipe says.
FIXED = (
    "image", "latent", "start", "train.batch", "train.discriminator_steps", "eval.holdout",
)  # fmt: skip
SHOWN = 6  # differences in a message
SETTINGS = ("betas", "momentum", "weight_decay")  # of an optimizer, which a recipe gives


def fork(
    run: Run | str | Path | int | None,
    at: int,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Run:
    """Train a new run that goes on from a run's checkpoint of step `at`; return the new run.

    `recipe` may change everything but the shapes of the networks and what `FIXED` lists; without
    one the new run does what its parent did after that step, to the bit. The parent is only read.
    Raises `StorageError` when the parent has no such checkpoint, and `RecipeError` when the
    checkpoint does not fit the recipe, or the images are others.
    """
    console = console or Console()
    environment.one_process("vgx fork")
    parent = find(run)
    registry = registry_of(parent)
    stored = trials.settled(load_recipe(parent.recipe_file, (), registry))
    _, state = checkpoint.load_step(parent, at)
    if "optimizers" not in state.numbers:
        raise RecipeError(f"{parent.path}: {NO_OPTIMIZER}, since it was imported")
    recipe = with_length(recipe or stored, None, stored)
    recipe = recipe.model_copy(update={"image": trials.as_before(recipe, stored).image})
    changed = _changes(parent, stored, recipe)
    require_writable(runs_dir(out))
    with blaming(registry):
        require_parts(recipe)
        training, new_parts = _begun(parent, stored, recipe, state, device, console)
        findings = _settled(training, registry, console)
    for text in changed:
        console.print(f"Changed: {text}")
    for text in new_parts:
        console.warn(text)
    if changed:
        findings.show(console)
    new = create(training.recipe.name, out)
    training.run = new
    with new.held(), signals(training, console):
        about = environment.describe(
            training.recipe,
            registry,
            training.engine.device,
            training.store,
            training.notices,
            None,
        )
        about["git"] = parent.environment().get("git")  # of its recipe
        about["parent"] = _parent(parent, state, training.engine)
        environment.write(new, registry, about, findings)
        _copy_past(parent, new, at, stored)
        _keep_best(parent, training, state)
        checkpoint.save(new, training.engine.state(state.numbers), training.recipe.train.keep)
        written = training.recipe.model_copy(update={"image": stored.image})
        write_file(new.place("recipe.yaml"), dump_recipe(written))  # only now can it be resumed
        console.print(f"Run {new.path} goes on from step {at:,} of {parent.path}")
        attribution = blaming(
            registry, working(training.engine), lambda: training.when, memory.ADVICE
        )
        with closing(training, registry, console), attribution:
            for _ in train_all(training, registry, console):
                pass
    return new


def _changes(parent: Run, stored: Recipe, recipe: Recipe) -> list[str]:
    """Return each field in which the recipes differ, as a line.

    Raises `RecipeError` when a field differs that a fork keeps.
    """
    changed = {
        name: f"{name}: {old!r} -> {new!r}"
        for name, (old, new) in differences(stored, recipe).items()
    }
    wrong = [
        text
        for name, text in changed.items()
        if any(name == field or name.startswith(f"{field}.") for field in FIXED)
    ]
    steps = stored.batches_per_step, recipe.batches_per_step
    if steps[0] != steps[1]:  # a discriminator that is thawed or frozen may change it too
        wrong.append(f"minibatches of a step: {steps[0]} -> {steps[1]}")
    if wrong:
        listed = "\n  ".join(wrong[:SHOWN])
        raise RecipeError(
            f"{parent.path}: a fork keeps {', '.join(FIXED)}; start a new run for that:\n  {listed}"
        )
    return [*changed.values()]


def _begun(
    parent: Run, stored: Recipe, recipe: Recipe, state: State, device: str | None, console: Console
) -> tuple[Training, list[str]]:
    """Build the training of a recipe, and set it to the state of a parent's checkpoint.

    Returns it, still with the parent as its run, and notices about what the state did not give.
    """
    done = state.numbers["step"]
    again = Command(f"vgx fork {parent.short} --at {done}", takes_set=True)
    training = with_its_images(parent, recipe, _loaded(recipe, state), device, console, again=again)
    engine = training.engine
    if engine.steps <= done:
        raise RecipeError(
            f"{parent.path}: the training ends at step {engine.steps:,}, so after step {done:,} "
            f"nothing is left to do; give the fork more steps: --set train.steps={2 * done}"
        )
    fitted, new_parts = _fitted(parent, stored, engine, state)
    set_to(training, fitted)
    return training, new_parts


def _settled(training: Training, registry: Registry, console: Console) -> Findings:
    """Check a training on a few images, and settle its precision; return what was found."""
    engine = training.engine
    images = as_batch(training.store, CHECKED, engine.device)
    with console.phase("Auditing the losses"):
        findings = examine(engine, registry, images)
    chosen, reason = trials.choose(engine, images)
    if reason:
        console.print(reason)
    training.recipe = training.recipe.model_copy(update={"train": chosen.train})
    configure(engine, training.batches, training.recipe)
    return findings


def _parent(parent: Run, state: State, engine: Engine) -> reading.Parent:
    """Return where a fork comes from, for `environment.json`."""
    return {
        "run": parent.path.resolve().name,
        "step": state.numbers["step"],
        "sha256": state.sha256,
        "networks": [*engine.recipe.networks],
        "how": "fork",
    }


# --- what a parent has until the fork ------------------------------------------------------------


def _copy_past(parent: Run, new: Run, at: int, stored: Recipe) -> None:
    """Copy the log of a parent and its grids until a step, so that a fork shows all its past."""
    with replacing(new.place("log.jsonl")) as log:
        # Without a step, the training itself writes the first line.
        for entry in reading.entries(parent.path) if at else ():
            if entry.line is not None and entry.line["step"] <= at:
                log.write(entry.text.rstrip(b"\n") + b"\n")
    grids = [
        step
        for step in map(frames.step_of, frames.drawn(parent))
        # Not a grid that was drawn only because the parent was stopped there.
        if step <= at and frames.due(step, stored.train.draw_every)
    ]
    pixels = stored.image.height * stored.image.width
    for step in frames.evenly(grids, frames.FRAMES):
        for file in frames.files(parent.samples, step).values():
            if not file.exists():
                continue
            # The parent may be a stranger's, and have a link to a file of the user in its place.
            grid = reading.unless_damaged(lambda path: reading.grid(path, pixels), file)
            if grid is not None:
                data = io.BytesIO()
                grid.save(data, "PNG")
                write_file(new.place("samples", file.name), data.getvalue(), sync=False)


def _keep_best(parent: Run, training: Training, state: State) -> None:
    """Copy the best checkpoint of a parent so far: the fork may have no better one."""
    name = training.recipe.eval.best
    best = training.measured.get(name or "")
    if best is None or best.best.step == state.numbers["step"]:
        return
    try:
        _, kept = checkpoint.load_step(parent, best.best.step)
    except StorageError as error:
        text = f"{error}; so the fork has no checkpoint that is best by {name} until a better one"
        warnings.warn(text, Notice, stacklevel=2)
        return
    checkpoint.save(training.run, kept, training.recipe.train.keep)


# --- a state that fits another recipe ------------------------------------------------------------


def _loaded(recipe: Recipe, state: State) -> Recipe:
    """Return the recipe without the pretrained weights that the state replaces."""
    losses = tuple(
        loss.untrained() if under(state.model, f"loss {loss.label}") else loss
        for loss in recipe.losses
    )
    return untrained(recipe).model_copy(update={"losses": losses})


@dataclass(frozen=True)
class _Owner:
    """Whose tensors these are: a network, the averages, or a loss with weights."""

    name: str
    own: dict[str, Tensor]  # as the recipe builds them
    saved: dict[str, Tensor]  # as the checkpoint has them

    @property
    def differing(self) -> Iterator[str]:
        """The tensors that do not fit, each as a text."""
        for key in dict.fromkeys([*self.saved, *self.own]):
            old, new = (_shape(tensors.get(key)) for tensors in (self.saved, self.own))
            if old != new:
                yield f"{self.name}.{key}: {old} in the checkpoint, {new} in the recipe"


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _fitted(parent: Run, stored: Recipe, engine: Engine, state: State) -> tuple[State, list[str]]:
    """Return a state for an engine: the checkpoint's tensors, and new ones where it has none.

    Also returns a notice for each thing that the fork begins anew or leaves behind. Raises
    `RecipeError` when the weights of a network do not fit.
    """
    fresh = engine.state({})
    losses = (loss.label for recipe in (stored, engine.recipe) for loss in recipe.losses)
    networks = {**stored.networks, **engine.recipe.networks}
    names = (
        *networks, "average", *dict.fromkeys(f"loss {label}" for label in losses),
        *engine.forward.saved_augmentations,
    )  # fmt: skip
    model: dict[str, Tensor] = {}
    notices: list[str] = []
    for name in names:
        owner = _Owner(name, under(fresh.model, name), under(state.model, name))
        taken, wrong = owner.saved, list(owner.differing)
        if wrong and name in networks:
            listed = "\n  ".join(wrong[:SHOWN])
            raise RecipeError(
                f"{parent.path}: a fork keeps its networks, and these tensors differ:\n  {listed}"
            )
        if wrong and name == "average":  # one that begins now begins with the weights of now
            weights = {f"module.{key}": tensor for key, tensor in state.model.items()}
            taken = {key: weights.get(key, tensor) for key, tensor in owner.own.items()}
        elif wrong:
            taken = owner.own
        if wrong:
            what = "begins anew" if taken else "is left behind"
            notices.append(f"{name}: {what}, at step {state.numbers['step']:,}")
        model |= {f"{name}.{key}": tensor for key, tensor in taken.items()}
    tensors, plain, more = _optimizers(stored, engine, fresh, state)
    # A network that is frozen from now on shows nothing more.
    same = stored.train.freeze == engine.recipe.train.freeze
    numbers = {**state.numbers, "optimizers": plain} | ({} if same else {"seen": {}})
    return State(model, tensors, state.latents, numbers), notices + more


def _optimizers(
    stored: Recipe, engine: Engine, fresh: State, state: State
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Return the tensors and the plain numbers of the optimizers, and notices about new ones."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    notices: list[str] = []
    for name, player in engine.players.items():
        own = fresh.numbers["optimizers"][name]
        saved = state.numbers["optimizers"].get(name)  # none of a player that was frozen
        if saved is None or player.settings.type != getattr(stored.train.optimizers, name).type:
            plain[name] = own
            step = state.numbers["step"]
            notices.append(f"optimizer of the {name}: begins anew, at step {step:,}")
            continue
        trained = {f"{name}/{parameter}" for parameter in player.trained}
        kept = {k: t for k, t in state.optimizer.items() if k.rpartition("/")[0] in trained}
        values = {k: v for k, v in saved["values"].items() if k.rpartition("/")[0] in trained}
        groups = [
            {**old, **{key: new[key] for key in SETTINGS if key in new}}
            for old, new in zip(saved["groups"], own["groups"], strict=True)
        ]
        tensors |= kept
        plain[name] = {"groups": groups, "values": values}
    return tensors, plain, notices
