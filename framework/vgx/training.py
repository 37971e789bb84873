"""The loop that drives the engine: prepare, train, log, draw, save, stop and go on."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgx import check, checkpoint, environment, keys, sampling
from vgx.blame import blaming
from vgx.checkpoint import State, last_good
from vgx.components import noting_reads
from vgx.data import (
    Batches,
    Store,
    as_batch,
    minibatches,
    noticing,
    open_source,
    open_store,
    peek,
)
from vgx.engine import MAX_CODES, Engine, sigmoid, untrained
from vgx.errors import DivergedError, RecipeError, Stopped, StorageError
from vgx.recipe import CHANGEABLE, Recipe, differences, dump_recipe, load_recipe
from vgx.registry import Registry, discover
from vgx.rundir import Run, create, find, write_file
from vgx.voice import Voice

DRAWN = 64  # pictures in a grid of fixed latents
RECONSTRUCTED = 16  # pictures above their reconstructions
CHECKED = 4  # pictures that the first look at the networks takes


@dataclass
class Training:
    """One run under way."""

    recipe: Recipe
    run: Run
    engine: Engine
    batches: Batches
    store: Store
    notices: list[str]
    done: int = 0  # steps
    seconds: float = 0.0  # spent in training, over all resumes
    saved: int = -1  # the step of the newest checkpoint
    stop: int = 0  # the signal that asked for the end

    @property
    def minibatches(self) -> int:
        """How many minibatches one step takes."""
        return self.recipe.train.discriminator_steps if self.recipe.discriminator else 1

    def step(self) -> dict[str, Tensor]:
        """Do the next step; return the loss terms. Raises `DivergedError`."""
        first = self.done * self.minibatches
        numbers = range(first, first + self.minibatches)
        pictures = [self.batches[number] for number in numbers]
        labels = [self.batches.labels(number) for number in numbers]
        values = self.engine.step(self.done, pictures, labels)
        self.done += 1
        return values

    @property
    def when(self) -> str:
        """How far it is, for a message about what broke on the way."""
        return f"{self.run.path}: step {self.done + 1}"


def run(
    recipe: Recipe,
    out: str | Path | None = None,
    device: str | None = None,
    plugins: Sequence[Path] = (),
    registry: Registry | None = None,
    voice: Voice | None = None,
    folder: Path | None = None,
) -> Run:
    """Check the recipe, train it in a new run directory, draw its pictures.

    `plugins` are files to copy into the run; `folder` is where the recipe lies, whose git commit is
    noted. Raises a `VgxError`: `Stopped` after a signal, with everything saved.
    """
    voice = voice or Voice()
    registry = registry or discover(plugins)
    with noting_reads() as reads:
        with blaming(recipe, registry):
            store, notices = _open(recipe, voice)
            engine, batches = _build(recipe, store, pick_device(device), notices, voice)
        batch = as_batch(store, CHECKED, engine.device)
        with blaming(recipe, registry, engine.networks):
            findings = check.examine(engine, registry, *batch, reads)
    show(findings, voice)
    made = create(recipe.name, out)
    training = Training(recipe, made, engine, batches, store, notices)
    with made.held(), _signals(training):
        for file in plugins:
            shutil.copy(file, made.path / "plugins" / Path(file).name)
        about = environment.describe(recipe, registry, engine.device, store, notices, folder)
        write_file(made.path / "environment.json", _json(about))
        write_file(made.recipe_file, dump_recipe(recipe))  # with the recipe it is a run
        voice.say(f"Run {made.path} on {engine.device}")
        with blaming(recipe, registry, engine.networks, lambda: training.when):
            _train(training, voice)
    return made


def resume(
    run: Run | str | Path | int | None = None,
    recipe: Recipe | None = None,
    device: str | None = None,
    voice: Voice | None = None,
) -> Run:
    """Go on with a run from its newest checkpoint, as if it had never stopped.

    A recipe may be given to train longer or to log, draw and save at other times; any other
    difference is a `RecipeError`.
    """
    voice = voice or Voice()
    found = find(run)
    if not found.recipe_file.is_file():
        raise StorageError(f"{found.path}: it was ended before it began; start it again")
    registry = sampling.registry_of(found)
    stored = load_recipe(found.recipe_file, (), registry)
    recipe = recipe or stored
    changed = differences(stored, recipe)
    wrong = [
        f"{name}: {old!r} -> {new!r}"
        for name, (old, new) in changed.items()
        if name not in CHANGEABLE
    ]
    if wrong:
        listed = "\n  ".join(wrong[:6])
        message = f"{found.path} was made by another recipe; start a new run for that:\n  {listed}"
        raise RecipeError(message)
    with found.held():
        state, notices = newest(found, recipe)
        for notice in notices:
            voice.warn(notice)
        with blaming(recipe, registry):
            training = opened(found, recipe, state, device, voice)
        training.notices += notices
        for notice in environment.changes(
            found, environment.machine(registry, training.engine.device)
        ):
            voice.warn(notice)
        found.rewind_log(training.done if state else -1)
        if changed:
            write_file(found.recipe_file, dump_recipe(recipe))
        voice.say(f"Run {found.path} goes on from step {training.done:,}")
        named = blaming(recipe, registry, training.engine.networks, lambda: training.when)
        with _signals(training), named:
            _train(training, voice)
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
    run: Run, recipe: Recipe, state: State | None, device: str | None, voice: Voice
) -> Training:
    """Build a run's training again, as it was at a checkpoint.

    Raises `RecipeError` when the pictures are others.
    """
    store, notices = _open(recipe, voice)
    before = run.environment()["data"]
    if store.content != before["content"]:
        counts = f"{before['kept']:,} then, {len(store.images):,} now"
        message = f"the pictures are not those of the run ({counts}); start a new run"
        raise RecipeError(f"{run.path}: {message}")
    asked = untrained(recipe) if state else recipe
    engine, batches = _build(asked, store, pick_device(device), notices, voice)
    training = Training(recipe, run, engine, batches, store, notices)
    if state:
        engine.restore(state)
        training.done = training.saved = state.numbers["step"]
        training.seconds = state.numbers["seconds"]
    return training


def examine(recipe: Recipe, registry: Registry, device: str | None, voice: Voice) -> None:
    """Do everything that `run` does before its first step, and write nothing."""
    with noting_reads() as reads:
        with blaming(recipe, registry):
            source, notices = open_source(recipe.dataset, recipe.image)
            for notice in notices:
                voice.warn(notice)
            voice.say(f"Data: {len(source):,} pictures before filtering")
            chosen = pick_device(device)
            per_epoch = minibatches(len(source), recipe.train.batch)
            engine = Engine(recipe, steps_of(recipe, per_epoch), CHECKED, chosen)
            pictures = peek(source, recipe.image, CHECKED, recipe.dataset.tolerated)
        batch = as_batch(pictures, CHECKED, chosen)
        with blaming(recipe, registry, engine.networks):
            findings = check.examine(engine, registry, *batch, reads)
    show(findings, voice)


def pick_device(name: str | None) -> torch.device:
    """Return the device that was asked for, or the best one there is."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"--device {name}: {first}") from error


def show(findings: check.Findings, voice: Voice) -> None:
    """Print the networks, the losses of the first batch, and what the parts have to say."""
    rows = [
        (row.network, row.part, row.shapes, f"{row.parameters:,}", f"{row.trained:,}")
        for row in findings.rows
    ]
    voice.table(("network", "part", "shapes", "parameters", "trained"), rows)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in findings.losses.items())
    voice.say(f"Losses of the first batch: {losses}")
    networks = list(findings.flows[0].norms) if findings.flows else []
    reached = [
        (flow.label, *("-" if flow.norms[n] is None else f"{flow.norms[n]:.3g}" for n in networks))
        for flow in findings.flows
    ]
    voice.table(("gradient norm of", *networks), reached)
    for note in findings.notes:
        voice.say(note)


# --- before the first step ---------------------------------------------------------------------


def _open(recipe: Recipe, voice: Voice) -> tuple[Store, list[str]]:
    source, notices = open_source(recipe.dataset, recipe.image)
    for notice in notices:
        voice.warn(notice)
    max_bad = recipe.dataset.tolerated
    # Also when the store is there already: the audit wants to see what reading a picture takes.
    peek(source, recipe.image, 1, max_bad)
    with voice.work("Decoding", len(source)) as advance:
        store = open_store(source, recipe.image, lambda more: advance(more, "pictures"), max_bad)
    voice.say(f"Data: {store.summary()}")
    return store, notices


def _build(
    recipe: Recipe, store: Store, device: torch.device, notices: list[str], voice: Voice
) -> tuple[Engine, Batches]:
    train = recipe.train
    batches = Batches(store.images, train.batch, train.seed, device, store.labels)
    steps = steps_of(recipe, batches.per_epoch)
    codes = min(batches.per_epoch * train.batch, MAX_CODES)
    given: list[str] = []
    with noticing(given):
        engine = Engine(recipe, steps, codes, device)
    for notice in given:
        voice.warn(notice)
    notices += given
    return engine, batches


def steps_of(recipe: Recipe, per_epoch: int) -> int:
    """Return how many steps a training has whose epochs have so many minibatches."""
    train = recipe.train
    per_step = train.discriminator_steps if recipe.discriminator else 1
    return train.steps or math.ceil((train.epochs or 1) * per_epoch / per_step)


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


# --- the loop ----------------------------------------------------------------------------------


def _train(training: Training, voice: Voice) -> None:
    """Train to the end or to a signal; log, draw and save on the way."""
    recipe, engine, made = training.recipe, training.engine, training.run
    train = recipe.train
    for notice in environment.room(made, engine):
        voice.warn(notice)
    if training.notices and training.done == 0:
        made.log({**_line(training, {}), "notices": training.notices})
    with voice.work("Training", engine.steps, training.done) as advance:
        start, since = time.perf_counter() - training.seconds, (time.perf_counter(), training.done)
        while training.done < engine.steps and not training.stop:
            try:
                values = training.step()
            except DivergedError as error:
                raise _diverged(training, str(error)) from None
            training.seconds = time.perf_counter() - start
            last = training.done == engine.steps
            text = ""
            if training.done % train.log_every == 0 or last or training.done == 1:
                losses = {name: value.item() for name, value in values.items()}
                made.log(_line(training, losses))
                text, since = _progress(losses, training, since)
            advance(1, text)
            if training.done % train.draw_every == 0 or last:
                _draw(training)
            if training.done % train.save_every == 0 or last:
                _save(training)
        if training.saved != training.done:
            _save(training)
    if training.stop:
        name = signal.Signals(training.stop).name
        done = f"{name}: stopped at step {training.done:,} and saved"
        raise Stopped(f"{done}; go on with: vgx resume {made.path}", training.stop)


def _diverged(training: Training, what: str) -> DivergedError:
    advice = "a lower learning rate or train.clip may help"
    return DivergedError(f"{training.run.path}: {what}; {last_good(training.run)}; {advice}")


def _line(training: Training, losses: dict[str, float]) -> dict[str, Any]:
    consumed = training.done * training.minibatches
    optimizers = training.engine.optimizers
    return {
        "step": training.done,
        "epoch": round(consumed / training.batches.per_epoch, 4),
        "images": consumed * training.recipe.train.batch,
        "seconds": round(training.seconds, 3),
        "losses": losses,
        "rates": {player: o.param_groups[0]["lr"] for player, o in optimizers.items()},
    }


def _progress(
    losses: dict[str, float], training: Training, since: tuple[float, int]
) -> tuple[str, tuple[float, int]]:
    now = time.perf_counter()
    pictures = (training.done - since[1]) * training.minibatches * training.recipe.train.batch
    terms = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
    terms = terms.replace(".generator", " G").replace(".discriminator", " D")
    return f"{terms} | {pictures / (now - since[0]):.1f} images/s", (now, training.done)


@contextlib.contextmanager
def _signals(training: Training) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the training after the step under way; a second SIGINT at once."""

    def note(number: int, _: object) -> None:
        # Schedulers repeat their SIGTERM; whoever presses Ctrl-C again does not want to wait.
        if training.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        training.stop = training.stop or number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _save(training: Training) -> None:
    consumed = training.done * training.minibatches
    numbers = {
        "step": training.done,
        "epoch": consumed / training.batches.per_epoch,
        "images": consumed * training.recipe.train.batch,
        "seconds": training.seconds,
    }
    state = training.engine.state(numbers)
    for name, tensor in (state.model | state.optimizer | state.latents).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _diverged(training, f"step {training.done}: {name} is not finite, so not saved")
    checkpoint.save(training.run, state, training.recipe.train.keep)
    training.saved = training.done


@torch.no_grad()
def _draw(training: Training) -> None:
    """Draw the same latents, and the same pictures above their reconstructions, as ever."""
    engine, recipe, made = training.engine, training.recipe, training.run
    shown = {
        name: engine.shown(name).eval()
        for name in ("encoder", "decoder")
        if name in engine.networks
    }
    chance = keys.generator(recipe.train.seed, "fixed latents")
    z = torch.randn(DRAWN, *recipe.latent.shape, generator=chance).to(engine.device)  # [N, *Z]
    name = f"{training.done:08}.png"

    def decoded(z: Tensor, labels: Tensor | None) -> Tensor:
        told = (labels,) if recipe.decoder.conditional else ()
        return sigmoid(shown["decoder"](z, *told))  # [N, C, H, W]

    images = decoded(z, sampling.in_turn(DRAWN, recipe, engine.device))
    sampling.save_grid(images, made.samples / f"step-{name}")
    if "encoder" in shown:
        real, labels = as_batch(training.store, RECONSTRUCTED, engine.device)
        recon = decoded(shown["encoder"](real).mean, labels)  # [N, C, H, W]
        half = math.ceil(len(real) / 2)
        rows = [real[:half], recon[:half], real[half:], recon[half:]]
        sampling.save_grid(torch.cat(rows), made.samples / f"recon-{name}", columns=half)
    for network in engine.networks.values():
        network.train()
