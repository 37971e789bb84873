"""The loop that drives the engine: train, log, draw, save, stop.

Nothing here knows how a run begins or goes on; `training` does.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from torch.profiler import profile, record_function

from vgx import rng
from vgx.console import Voice
from vgx.data.store import Batches, Store
from vgx.engine.engine import Engine
from vgx.errors import DivergedError, Stopped, StorageError, noticing
from vgx.evaluation.metrics import Eyes, while_training
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, frames
from vgx.runs.checkpoint import last_good
from vgx.runs.directory import Run
from vgx.training import environment
from vgx.training import trackers as tracking
from vgx.training.monitors import Watch
from vgx.training.progress import draw
from vgx.training.trackers import Trackers

ROLLBACKS = 3  # of one run: what breaks more often is not mended by other draws
SLOWER = 0.5  # what each multiplies the learning rates by


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
    rollbacks: int = 0  # so far
    paced: tuple[float, int] = (0.0, 0)  # when its speed was last told, and at which step
    warnings: list[str] = field(default_factory=list)  # that no line of the log has yet
    metrics: dict[str, float] = field(default_factory=dict)  # the same
    trackers: Trackers = field(default_factory=Trackers)  # that are open
    profiler: profile | None = None  # told of every step

    @property
    def numbers(self) -> range:
        """The minibatches of the next step."""
        first = self.done * self.recipe.batches_per_step
        return range(first, first + self.recipe.batches_per_step)

    def begin(self, rollbacks: int) -> None:
        """Go on as after so many rollbacks: each has other draws and lower learning rates."""
        self.rollbacks, seed = rollbacks, self.recipe.train.seed
        if rollbacks:
            seed = rng.key(seed, "rollback", rollbacks)
        self.engine.seed = self.batches.seed = seed
        self.engine.slowed = SLOWER**rollbacks

    def step(self) -> dict[str, Tensor]:
        """Do the next step; return the loss terms. Raises `DivergedError`."""
        with record_function("vgx: data"):
            pictures = [self.batches[number] for number in self.numbers]
            labels = [self.batches.labels(number) for number in self.numbers]
        values = self.engine.step(self.done, pictures, labels)
        self.done += 1
        if self.profiler is not None:
            self.profiler.step()
        return values

    @property
    def when(self) -> str:
        """How far it is, for a message about what broke on the way."""
        return f"{self.run.path}: step {self.done + 1}"


def train(training: Training, voice: Voice) -> None:
    """Train to the end or to a signal; log, draw and save on the way."""
    engine, made = training.engine, training.run
    _begin(training, voice)
    watch = Watch(engine, training.store)
    eyes = Eyes(training.recipe.image, engine.device, keep=False)
    parts, warn = training.recipe.trackers, lambda text: _warn(training, [text], voice)
    training.trackers = tracking.opened(parts, made.path, warn)
    told = contextlib.closing(training.trackers)
    with told, voice.work("Training", engine.steps, training.done) as advance:
        shown = training.done
        start = time.perf_counter() - training.seconds
        training.paced = (time.perf_counter(), training.done)
        while training.done < engine.steps and not training.stop:
            try:
                values = training.step()
                due = _due(training)
                if any(due) or training.stop:
                    engine.guard.confirm()
            except DivergedError as error:
                training.done = training.done if error.step is None else error.step
                _note_pictures(training, str(error))
                _roll_back(training, str(error), voice)
                continue
            training.seconds = time.perf_counter() - start
            training.metrics = _measure(training, eyes)
            text = _tell(training, values, due, watch, voice)
            advance(training.done - shown, text)
            shown = training.done
            if due.draw:
                _draw(training)
            if due.save or (_judges(training) and _best(training) == training.done):
                _save(training, voice)
        if training.saved != training.done:
            engine.guard.confirm()
            _save(training, voice)
        if training.stop and training.done:
            _draw(training)  # where it stands; whoever stopped it may not wait longer than to save
    if training.stop:
        name = signal.Signals(training.stop).name
        done = f"{name}: stopped at step {training.done:,} and saved"
        raise Stopped(f"{done}; go on with: vgx resume {made.path}", training.stop)


class Due(NamedTuple):
    """What is to be done about the step just taken."""

    log: bool
    draw: bool
    save: bool


def _due(training: Training) -> Due:
    done, asked = training.done, training.recipe.train
    last = done == training.engine.steps
    return Due(
        done % asked.log_every == 0 or last or done == 1 or _judges(training),
        frames.due(done, asked.draw_every) or last,
        done % asked.save_every == 0 or last,
    )


def _tell(
    training: Training, values: dict[str, Tensor], due: Due, watch: Watch, voice: Voice
) -> str:
    """Warn of what the monitors see and log the step; return what the progress line says."""
    if due.draw:
        _warn(training, watch.pictures(training.done), voice)
    if not due.log and not training.warnings:
        return ""
    losses = {name: value.item() for name, value in values.items()}
    _warn(training, watch.numbers(training.done, losses), voice)
    line = _line(training, losses)
    training.run.log(line)
    training.trackers.log(line)
    return _progress(losses, training)


def _draw(training: Training) -> None:
    grids = draw(training.engine, training.store, training.run, training.done)
    for name, grid in grids.items():
        training.trackers.images(training.done, name, grid)


def _judges(training: Training) -> bool:
    """Tell whether metrics are measured after the step just done."""
    done, every = training.done, training.recipe.eval.every
    return every is not None and (done % every == 0 or done == training.engine.steps)


def _measure(training: Training, eyes: Eyes) -> dict[str, float]:
    if not _judges(training):
        return {}
    return while_training(training.engine, training.store, training.done, eyes)


def _best(training: Training) -> int | None:
    """Return the step of the best measurement so far, if the recipe says what is best."""
    name = training.recipe.eval.best
    if name is None:
        return None
    return checkpoint.best(training.run, name, training.recipe.eval.better[name])


def _begin(training: Training, voice: Voice) -> None:
    for notice in environment.room(training.run, training.engine):
        voice.warn(notice)
    if training.notices and training.done == 0:
        training.run.log({**_line(training, {}), "notices": training.notices})
    if training.recipe.train.on_nonfinite == "rollback" and training.saved < 0:
        _save(training, voice)  # the first step shall have something to go back to


def _warn(training: Training, texts: list[str], voice: Voice) -> None:
    for text in texts:
        voice.warn(f"step {training.done:,}: {text}")
    training.warnings += texts


def _note_pictures(training: Training, what: str) -> None:
    """Keep which pictures of the store a step had that was not finite, a list a minibatch."""
    rows = [training.batches.rows(number).tolist() for number in training.numbers]
    line = {"step": training.done + 1, "what": what, "pictures": rows}
    # That a step was not finite matters more than that this could not be written.
    with contextlib.suppress(OSError), (training.run.path / "nonfinite.jsonl").open("a") as file:
        file.write(json.dumps({**line, "rollbacks": training.rollbacks}) + "\n")


def _roll_back(training: Training, what: str, voice: Voice) -> None:
    """Go back to the last checkpoint that was due, to try other draws.

    Raises `DivergedError` when the recipe does not want that, or it was done too often.
    """
    if training.recipe.train.on_nonfinite == "stop":
        advice = "a lower learning rate, train.clip or train.on_nonfinite=rollback may help"
        raise _diverged(training, what, advice)
    if training.rollbacks == ROLLBACKS:
        advice = "a lower learning rate or train.clip may help"
        raise _diverged(training, f"{what}, after {ROLLBACKS} rollbacks", advice)
    notices: list[str] = []
    # Not to one that a signal asked for: a run that was stopped shall end as one that was not.
    every = training.recipe.train.save_every
    scheduled = training.done // every * every
    with noticing(notices):
        try:
            state = checkpoint.load(training.run, before=scheduled + 1)[1]
        except StorageError:  # pruned: it was stopped more often since than checkpoints are kept
            state = checkpoint.load(training.run)[1]
    training.engine.restore(state)
    training.done = state.numbers["step"]
    training.begin(training.rollbacks + 1)
    training.run.rewind_log(training.done)
    _save(training, voice)  # with the count, so that a resume goes on from here
    told = f"rollback {training.rollbacks} of {ROLLBACKS}: {what}; back at step {training.done:,}"
    rates = f"with other draws and {training.engine.slowed:g} times the learning rates"
    _warn(training, [*notices, f"{told} {rates}"], voice)


def _diverged(training: Training, what: str, advice: str) -> DivergedError:
    return DivergedError(f"{training.run.path}: {what}; {last_good(training.run)}; {advice}")


def _line(training: Training, losses: dict[str, float]) -> dict[str, Any]:
    consumed = training.done * training.recipe.batches_per_step
    optimizers = training.engine.optimizers
    line = {
        "step": training.done,
        "epoch": round(consumed / training.batches.per_epoch, 4),
        "images": consumed * training.recipe.train.batch,
        "seconds": round(training.seconds, 3),
        "losses": losses,
        "rates": {player: o.param_groups[0]["lr"] for player, o in optimizers.items()},
    }
    more = {"metrics": training.metrics, "warnings": training.warnings}
    training.metrics, training.warnings = {}, []
    return {**line, **{name: given for name, given in more.items() if given}}


def _progress(losses: dict[str, float], training: Training) -> str:
    now, (then, before) = time.perf_counter(), training.paced
    training.paced = (now, training.done)
    steps = max(training.done - before, 0)  # fewer than none after a rollback
    pictures = steps * training.recipe.batches_per_step * training.recipe.train.batch
    terms = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
    terms = terms.replace(".generator", " G").replace(".discriminator", " D")
    return f"{terms} | {pictures / (now - then):.1f} images/s"


@contextlib.contextmanager
def signals(training: Training) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGUSR1 end the training after the step under way.

    SIGUSR1 is how SLURM warns before the end (`--signal=USR1@90`). A second SIGINT ends it at once.
    """

    def note(number: int, _: object) -> None:
        # Schedulers repeat their SIGTERM; whoever presses Ctrl-C again does not want to wait.
        if training.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        training.stop = training.stop or number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    old = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _save(training: Training, voice: Voice) -> None:
    """Commit a checkpoint; what is not finite is none, and has the run go back."""
    consumed = training.done * training.recipe.batches_per_step
    numbers = {
        "step": training.done,
        "epoch": consumed / training.batches.per_epoch,
        "images": consumed * training.recipe.train.batch,
        "seconds": training.seconds,
        "rollbacks": training.rollbacks,
    }
    state = training.engine.state(numbers)
    for name, tensor in (state.model | state.optimizer | state.latents).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            what = f"step {training.done}: {name} is not finite, so not saved"
            _roll_back(training, what, voice)
            return
    checkpoint.save(training.run, state, training.recipe.train.keep, _best(training))
    training.saved = training.done
