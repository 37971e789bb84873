"""Runs from beginning to end: check, build, train; and how one goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from vgx.check import examine as check
from vgx.check import trials as tuning
from vgx.check.blame import blaming, working
from vgx.console import Console
from vgx.data.batches import Batches, as_batch, minibatches
from vgx.data.split import held_out
from vgx.data.store import Store, open_source, open_with_progress, peek
from vgx.engine import memory
from vgx.engine.build import untrained
from vgx.engine.engine import Engine
from vgx.engine.stored_latents import MOST
from vgx.errors import RecipeError, StorageError, noticing
from vgx.evaluation.metrics import try_metrics
from vgx.files import write_file
from vgx.parts.base import noting_reads
from vgx.parts.registry import Registry, discover
from vgx.recipe.load import differences, dump_recipe, load_recipe
from vgx.recipe.model import CHANGEABLE, Recipe
from vgx.runs import checkpoint, frames
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, create, find
from vgx.sampling import model as sampling
from vgx.training import (
    environment,
)
from vgx.training import (
    profiler as profiling,
)
from vgx.training import (
    trackers as tracking,
)
from vgx.training.ending import closing
from vgx.training.loop import Training, signals, train

RESIDENT = 0.25  # of a GPU's memory that the pictures may take
CHECKED = 4  # pictures that the first look at the networks takes


def run(
    recipe: Recipe,
    out: str | Path | None = None,
    device: str | None = None,
    plugins: Sequence[Path] = (),
    registry: Registry | None = None,
    console: Console | None = None,
    folder: Path | None = None,
    *,
    profile: bool = False,
) -> Run:
    """Check the recipe, train it in a new run directory, draw its pictures.

    `plugins` are files to copy into the run; `folder` is where the recipe lies, whose git commit is
    noted; with `profile` a few steps are profiled. Raises a `VgxError`: `Stopped` after a signal,
    with everything saved.
    """
    console = console or Console()
    registry = registry or discover(plugins)
    with noting_reads() as reads:
        with blaming(registry):
            store, notices = _open(recipe, console)
            engine, batches = _build(recipe, store, pick_device(device), notices, console)
        batch = as_batch(store, CHECKED, engine.device)
        findings = check.examine(engine, registry, batch, reads)
    with blaming(registry):
        try_metrics(recipe.eval, recipe.image)
        tracking.look_for(recipe.trackers)
    show(findings, console)
    advice = findings.need.advice(recipe.train.batch, recipe.train.accumulate)
    with blaming(registry, working(engine), advice=advice):
        batch = tuning.trial_batch(engine, store)
        recipe, why = tuning.choose(engine, batch, findings.forward)
    if why:
        console.print(why)
    prepare(engine, batches, recipe)
    made = create(recipe.name, out)
    training = Training(recipe, made, engine, batches, store, notices)
    with made.held(), signals(training):
        for file in plugins:
            shutil.copy(file, made.path / "plugins" / Path(file).name)
        about = environment.describe(recipe, registry, engine.device, store, notices, folder)
        write_file(made.path / "environment.json", _json(about))
        write_file(made.path / "audit.json", _json(dataclasses.asdict(findings)))
        write_file(made.recipe_file, dump_recipe(recipe))  # with the recipe it is a run
        console.print(f"Run {made.path} on {engine.device}")
        named = blaming(registry, working(engine), lambda: training.when, advice)
        watched = profiling.profiled(training, console) if profile else nullcontext()
        with closing(training, registry, console), named, watched:
            train(training, console)
    return made


def resume(
    run: Run | str | Path | int | None = None,
    recipe: Recipe | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Run:
    """Go on with a run from its newest checkpoint, as if it had never stopped.

    A recipe may be given to train longer or to log, draw and save at other times; any other
    difference is a `RecipeError`.
    """
    console = console or Console()
    found = find(run)
    if not found.recipe_file.is_file():
        raise StorageError(f"{found.path}: it was ended before it began; start it again")
    registry = sampling.registry_of(found)
    stored = tuning.settled(load_recipe(found.recipe_file, (), registry))  # of old runs, not yet
    recipe = tuning.as_before(recipe or stored, stored)
    changed = differences(stored, recipe)
    wrong = [
        f"{name}: {old!r} -> {new!r}"
        for name, (old, new) in changed.items()
        if not {name, name.partition(".")[0]} & {*CHANGEABLE}
    ]
    if wrong:
        listed = "\n  ".join(wrong[:6])
        message = f"{found.path} was made by another recipe; start a new run for that:\n  {listed}"
        raise RecipeError(message)
    tracking.look_for(recipe.trackers)
    with found.held():
        state, notices = newest(found, recipe)
        for notice in notices:
            console.warn(notice)
        with blaming(registry):
            training = opened(found, recipe, state, device, console)
        training.notices += notices
        for notice in environment.changes(
            found, environment.machine(registry, training.engine.device)
        ):
            console.warn(notice)
        found.rewind_log(training.done or -1)
        goes_on = training.done < training.engine.steps
        if goes_on and not frames.due(training.done, stored.train.draw_every):
            frames.forget(found, training.done)  # a run that was never stopped has none of here
        if changed:
            write_file(found.recipe_file, dump_recipe(recipe))
        console.print(f"Run {found.path} goes on from step {training.done:,}")
        named = blaming(registry, working(training.engine), lambda: training.when)
        with signals(training), closing(training, registry, console), named:
            train(training, console)
    return found


def newest(run: Run, recipe: Recipe) -> tuple[State | None, list[str]]:
    """Return the state that a run goes on from, and what a person must know about it.

    None is the very beginning, for a run that was ended before its first checkpoint. Raises
    `StorageError` when there is no checkpoint although there was one.
    """
    notices: list[str] = []
    reached = max((line["step"] for line in run.read_log()), default=0)
    if not checkpoint.committed(run) and reached <= recipe.train.save_every:
        return None, [f"{run.path}: ended before its first checkpoint; begins again"]
    with noticing(notices):
        return checkpoint.load(run)[1], notices


def opened(
    run: Run, recipe: Recipe, state: State | None, device: str | None, console: Console
) -> Training:
    """Build a run's training again, as it was at a checkpoint.

    Raises `RecipeError` when the pictures are others.
    """
    store, notices = _open(recipe, console)
    before = run.environment()["data"]
    if store.content != before["content"]:
        counts = f"{before['kept']:,} then, {len(store.images):,} now"
        message = f"the pictures are not those of the run ({counts}); start a new run"
        raise RecipeError(f"{run.path}: {message}")
    asked = untrained(recipe) if state else recipe
    engine, batches = _build(asked, store, pick_device(device), notices, console)
    training = Training(recipe, run, engine, batches, store, notices)
    prepare(engine, batches, recipe)
    if state:
        engine.restore(state)
        training.done = training.saved = state.numbers["step"]
        training.seconds = state.numbers["seconds"]
        training.retry(state.numbers.get("rollbacks", 0))
    return training


def prepare(engine: Engine, batches: Batches, recipe: Recipe) -> None:
    """Make everything ready for many steps in the way that the recipe settles."""
    engine.use(recipe)
    if engine.device.type == "cpu":
        memory.keep_freed()
    else:
        if batches.images.nbytes < RESIDENT * memory.there_is(engine.device):
            batches.reside()
        # What float32 convolutions and products are worth on a GPU: their inputs lose 13 bits.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.deterministic = True  # a run repeats to the bit


def examine(recipe: Recipe, registry: Registry, device: str | None, console: Console) -> None:
    """Do everything that `run` does before its first step, and write nothing."""
    show(looked_at(recipe, registry, device, console)[1], console)


def looked_at(
    recipe: Recipe, registry: Registry, device: str | None, console: Console
) -> tuple[Engine, check.Findings]:
    """Do everything that `run` does before its first step; return what it was done with."""
    with noting_reads() as reads:
        with blaming(registry):
            source, notices = open_source(recipe.dataset, recipe.image)
            for notice in notices:
                console.warn(notice)
            console.print(f"Data: {len(source):,} pictures before filtering")
            chosen = pick_device(device)
            trained = math.ceil(len(source) * (1 - recipe.eval.holdout))
            per_epoch = minibatches(trained, recipe.train.batch)
            codes = per_epoch * recipe.train.batch
            engine = Engine(recipe, steps_of(recipe, per_epoch), codes, chosen)
            pictures = peek(source, recipe.image, CHECKED, recipe.dataset.tolerated)
        batch = as_batch(pictures, CHECKED, chosen)
        findings = check.examine(engine, registry, batch, reads)
    with blaming(registry):
        try_metrics(recipe.eval, recipe.image)
        tracking.look_for(recipe.trackers)
    return engine, findings


def pick_device(name: str | None) -> torch.device:
    """Return the device that was asked for, or the best one there is."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"--device {name}: {first}") from error


def show(findings: check.Findings, console: Console) -> None:
    """Print the networks, the losses of the first batch, and what the parts have to say."""
    rows = [
        (row.network, row.part, row.shapes, f"{row.parameters:,}", f"{row.trained:,}")
        for row in findings.rows
    ]
    console.table(("network", "part", "shapes", "parameters", "trained"), rows)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in findings.losses.items())
    console.print(f"Losses of the first batch: {losses}")
    networks = list(findings.flows[0].norms) if findings.flows else []
    reached = [
        (flow.label, *("-" if flow.norms[n] is None else f"{flow.norms[n]:.3g}" for n in networks))
        for flow in findings.flows
    ]
    console.table(("gradient norm of", *networks), reached)
    for note in findings.notes:
        console.print(note)


# --- before the first step ---------------------------------------------------------------------


def _open(recipe: Recipe, console: Console) -> tuple[Store, list[str]]:
    source, notices = open_source(recipe.dataset, recipe.image)
    for notice in notices:
        console.warn(notice)
    # Also when the store is there already: the audit wants to see what reading an image takes.
    peek(source, recipe.image, 1, recipe.dataset.tolerated)
    store = open_with_progress(source, recipe.dataset, recipe.image, console)
    held = held_out(store.hashes, recipe.eval.holdout).sum()
    console.print(f"Data: {store.summary()}" + (f"; {held:,} held out" if held else ""))
    return store, notices


def _build(
    recipe: Recipe, store: Store, device: torch.device, notices: list[str], console: Console
) -> tuple[Engine, Batches]:
    train = recipe.train
    held = held_out(store.hashes, recipe.eval.holdout)
    rows = np.flatnonzero(~held) if held.any() else None
    batches = Batches(store.images, train.batch, train.seed, device, store.labels, rows)
    steps = steps_of(recipe, batches.per_epoch)
    codes = min(batches.per_epoch * train.batch, MOST)
    given: list[str] = []
    with noticing(given):
        engine = Engine(recipe, steps, codes, device)
    for notice in given:
        console.warn(notice)
    notices += given
    return engine, batches


def steps_of(recipe: Recipe, per_epoch: int) -> int:
    """Return how many steps a training has whose epochs have so many minibatches."""
    train = recipe.train
    return train.steps or math.ceil((train.epochs or 1) * per_epoch / recipe.batches_per_step)


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
