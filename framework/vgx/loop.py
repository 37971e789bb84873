"""The loop that drives the engine: train, log, draw, save, stop.

Nothing here knows how a run begins or goes on; `training` does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vgx import checkpoint, environment
from vgx.checkpoint import last_good
from vgx.data import Batches, Store
from vgx.drawing import draw
from vgx.engine import Engine
from vgx.errors import DivergedError, Stopped
from vgx.recipe import Recipe
from vgx.rundir import Run
from vgx.voice import Voice


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


def train(training: Training, voice: Voice) -> None:
    """Train to the end or to a signal; log, draw and save on the way."""
    recipe, engine, made = training.recipe, training.engine, training.run
    asked = recipe.train
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
            if training.done % asked.log_every == 0 or last or training.done == 1:
                losses = {name: value.item() for name, value in values.items()}
                made.log(_line(training, losses))
                text, since = _progress(losses, training, since)
            advance(1, text)
            if training.done % asked.draw_every == 0 or last:
                draw(engine, training.store, made, training.done)
            if training.done % asked.save_every == 0 or last:
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
def signals(training: Training) -> Iterator[None]:
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
