"""The training loop: step, log, draw, save, stop.

How a run begins and how it is resumed is in `session`. The loop is a generator: whoever trains
gets each step after it is done.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from vgx.console import Console
from vgx.data.store import name_of
from vgx.data.stream import StreamedImages
from vgx.distributed.group import is_first
from vgx.distributed.launcher import option_for
from vgx.distributed.processes import from_first, wait_for_first
from vgx.distributed.state import group
from vgx.errors import DataError, DivergedError, HubError, Stopped, StorageError, noticing
from vgx.evaluation.features import FeatureCache
from vgx.evaluation.metrics import measure_training
from vgx.files import open_own
from vgx.notebook import run as people
from vgx.runs import checkpoint, frames
from vgx.runs.best import as_numbers, measured_in
from vgx.runs.checkpoint import State, last_good
from vgx.runs.reading import Line
from vgx.training import environment
from vgx.training.monitors import accuracy, codebook_use, figures, gradient_norms
from vgx.training.processes import state_from_first
from vgx.training.progress import draw
from vgx.training.state import EndedElsewhere, TrainedStep, Training
from vgx.training.trackers import open_trackers

ROLLBACKS = 3  # of one run, at most: more do not help


def train(training: Training, console: Console) -> Iterator[TrainedStep]:
    """Train to the end or to a signal; log, draw and save on the way.

    Gives each step. A caller that closes this generator ends the training: it is saved, and
    `Stopped` is raised, as after a signal.
    """
    engine, run = training.engine, training.run
    _begin(training, console)
    cache = FeatureCache(training.recipe.image, engine.device, on_disk=False)
    trackers = training.recipe.trackers if is_first() else ()
    for tracker in trackers:  # the recipe may be a stranger's
        console.print(f"Opening the tracker {name_of(tracker)}")
    training.trackers = open_trackers(
        trackers, run.path, lambda text: _warn(training, [text], console)
    )
    with (
        contextlib.closing(training.trackers),
        console.progress(
            "Training", engine.steps, training.done, "steps", training.recipe.images_per_step
        ) as advance,
    ):
        advanced = training.done
        start = time.perf_counter() - training.seconds
        training.since = training.images, training.seconds
        while training.done < engine.steps and not training.ending and not training.exhausted:
            try:
                training.step()
                due = _due(training)
                # Of several processes all confirm the same steps.
                if any(due) or (training.stop and group().size == 1):
                    engine.guard.confirm()
                training.seconds = time.perf_counter() - start
                training.metrics = _measure(training, cache)
                values = _log(training, due, console)
                advance(training.done - advanced, values)
                advanced = training.done
                _draw_and_save(training, due, console)
            except EndedElsewhere:
                continue
            except (DivergedError, DataError, HubError) as error:
                _recover(training, error, console)
                continue
            with _leaving(training):
                yield _trained(training)
        if training.saved != training.done:
            _save(training, console)
        if (training.ending or training.exhausted) and training.done:
            _draw(training, console)  # after saving, because the process may soon be killed
    if training.ending:
        name = signal.Signals(training.stop).name if training.stop else "the loop was left"
        done = f"{name}: stopped at step {training.done:,} and saved"
        raise Stopped(f"{done}; {_go_on(training)}", training.stop)


def _go_on(training: Training) -> str:
    """Return the command that goes on with a run in as many processes."""
    return f"go on with: vgx resume {training.run.short}{option_for(group().size)}"


def _draw_and_save(training: Training, due: Due, console: Console) -> None:
    """Draw and save what is due; other processes wait until the first one has."""
    if due.draw:
        _draw(training, console)
    if due.save or (_evaluates(training) and training.best_step == training.done):
        _save(training, console)
    if any(due):
        wait_for_first()


@contextlib.contextmanager
def _leaving(training: Training) -> Iterator[None]:
    """Note that the caller closes the generator in the block."""
    try:
        yield
    except GeneratorExit:
        training.left = training.done < training.engine.steps and not training.exhausted


def _trained(training: Training) -> TrainedStep:
    """Return the last step, for whoever trains."""
    run, of = people.Run(training.run.path), training.engine.steps
    line, grids = training.logged, training.grids
    training.logged, training.grids = None, {}
    return TrainedStep(run, training.done, of, training.terms, line, grids)


class Due(NamedTuple):
    """What is due after a step."""

    log: bool
    draw: bool
    save: bool


def _due(training: Training) -> Due:
    done, train = training.done, training.recipe.train
    last = done == training.engine.steps
    return Due(
        done % train.log_every == 0 or last or done == 1 or _evaluates(training),
        frames.due(done, train.draw_every) or last,
        done % train.save_every == 0 or last,
    )


def _log(training: Training, due: Due, console: Console) -> list[str]:
    """Log the step and the monitor's warnings; return the values for the progress display."""
    if due.draw and is_first():
        _warn(training, training.monitor.images(training.done), console)
    if due.log and isinstance(training.store.images, StreamedImages):
        _warn(training, training.store.images.news(), console)
    if not due.log and not training.warnings:
        return []
    losses = training.losses
    _warn(training, training.monitor.losses(training.done, losses), console)
    training.logged = line = _line(training, losses)
    if is_first():
        training.run.log(line)
    training.measured = measured_in([line], training.recipe.eval.better, training.measured)
    training.trackers.log({**line})
    measured = [f"{name} {values.text}" for name, values in training.measured.items()]
    return [f"{short(name)} {value:.3g}" for name, value in losses.items()] + measured


def short(term: str) -> str:
    """Return the short name of a loss term, for people."""
    return term.replace(".generator", " G").replace(".discriminator", " D")


def _draw(training: Training, console: Console) -> None:
    training.refresh_average()
    if not is_first():
        return
    notices: list[str] = []
    with noticing(notices):
        grids = draw(training.engine, training.store, training.run, training.done)
    new = [notice for notice in notices if notice not in training.notices]
    training.notices += new  # each is printed once
    _warn(training, new, console)
    training.grids = grids
    for name, grid in grids.items():
        training.trackers.images(training.done, name, grid)


def _evaluates(training: Training) -> bool:
    """Return whether metrics are due after the last step."""
    done, every = training.done, training.recipe.eval.every
    return every is not None and (done % every == 0 or done == training.engine.steps)


def _measure(training: Training, cache: FeatureCache) -> dict[str, float]:
    if not _evaluates(training):
        return {}
    training.refresh_average()
    values = measure_training(training.engine, training.store, training.done, cache)
    return from_first(lambda: values)


def _begin(training: Training, console: Console) -> None:
    for notice in environment.room(training.run, training.engine) if is_first() else ():
        console.warn(notice)
    if training.notices and training.done == 0 and is_first():
        training.run.log({**_line(training, {}), "notices": training.notices})
    if training.recipe.train.on_nonfinite == "rollback" and training.saved < 0:
        _save(training, console)  # the first step can then be rolled back


def _warn(training: Training, texts: list[str], console: Console) -> None:
    for text in texts:
        console.warn(f"step {training.done:,}: {text}")
    training.warnings += texts


def _recover(
    training: Training, error: DivergedError | DataError | HubError, console: Console
) -> None:
    """Roll back after a step that was not finite, and note its images.

    Raises `DivergedError` when that is not allowed. When the images of a step cannot be read, saves
    the steps before and raises `DataError` or `HubError`.
    """
    if not isinstance(error, DivergedError):
        raise _without_images(training, error, console) from error
    training.done = training.done if error.step is None else error.step
    _note_images(training, str(error))
    _roll_back(training, str(error), console)


def _without_images(
    training: Training, error: DataError | HubError, console: Console
) -> DataError | HubError:
    """Save what is trained when the next images cannot be read; return the error to raise."""
    # No images for the statistics of averaged networks: those of the last time are saved.
    training.refreshed = (training.done, training.engine.rollbacks)
    if training.done and training.saved != training.done:
        _save(training, console)
    return type(error)(f"{error}; stopped at step {training.done:,} and saved; {_go_on(training)}")


def _note_images(training: Training, what: str) -> None:
    """Append the images of a step that was not finite to `nonfinite.jsonl`."""
    if not is_first():
        return
    rows = [training.batches.rows(number).tolist() for number in training.numbers]
    line = {"step": training.done + 1, "what": what, "pictures": rows}
    # The error of the step matters more than an error of the disk here.
    file = training.run.path / "nonfinite.jsonl"
    with contextlib.suppress(OSError, StorageError), open_own(file) as opened:
        opened.write(json.dumps({**line, "rollbacks": training.engine.rollbacks}) + "\n")


def _roll_back(training: Training, what: str, console: Console) -> None:
    """Restore the last scheduled checkpoint, and continue from it with other random numbers.

    Raises `DivergedError` when the recipe does not allow that, or after too many rollbacks.
    """
    rollbacks = training.engine.rollbacks
    if training.recipe.train.on_nonfinite == "stop":
        advice = "a lower learning rate, train.clip or train.on_nonfinite=rollback may help"
        raise _diverged(training, what, advice)
    if rollbacks == ROLLBACKS:
        advice = "a lower learning rate or train.clip may help"
        raise _diverged(training, f"{what}, after {ROLLBACKS} rollbacks", advice)
    notices: list[str] = []
    with noticing(notices):
        state = state_from_first(partial(_before, training))
    training.restore(state)
    training.set_rollbacks(rollbacks + 1)
    if is_first():
        training.run.rewind_log(training.done)
        frames.forget(training.run, training.done)
    where = f"rollback {rollbacks + 1} of {ROLLBACKS}: {what}; back at step {training.done:,}"
    how = f"with other random numbers and {training.engine.lr_scale:g} times the learning rates"
    _warn(training, [*notices, f"{where} {how}"], console)
    # With the number of rollbacks and this warning, so that a resume continues from here.
    _save(training, console)


def _before(training: Training) -> State:
    """Load the last scheduled checkpoint.

    Not one of a stop: a run that was stopped must end as one that never stopped.
    """
    scheduled = training.done - training.done % training.recipe.train.save_every
    try:
        return checkpoint.load(training.run, before=scheduled + 1)[1]
    except StorageError:  # it was removed: the run was stopped too often since
        return checkpoint.load(training.run)[1]


def _diverged(training: Training, what: str, advice: str) -> DivergedError:
    return DivergedError(f"{training.run.path}: {what}; {last_good(training.run)}; {advice}")


def _line(training: Training, losses: dict[str, float]) -> Line:
    """Return the line of the log for the last step."""
    players = training.engine.players.values()
    line: Line = {
        "step": training.done,
        "epoch": round(training.epoch, 4),
        "images": training.images,
        "seconds": round(training.seconds, 3),
        "losses": losses,
        "rates": {player.name: player.optimizer.param_groups[0]["lr"] for player in players},
    }
    if losses:
        seen = _seen(training)
        line["grad_norm"] = seen["grad_norm"]
        if seen["accuracy"]:
            line["accuracy"] = seen["accuracy"]
    if losses and (used := codebook_use(training.engine)):
        line["codebook"] = used
    if losses and (own := figures(training.engine)):
        line["figures"] = own
    if speed := _speed(training):
        line["images_per_second"] = speed
    if training.metrics:
        line["metrics"] = training.metrics
    if training.warnings:
        line["warnings"] = training.warnings
    training.metrics, training.warnings = {}, []
    return line


def _seen(training: Training) -> dict[str, dict[str, float]]:
    """Return what the last step that trained each player showed, also after a resume."""
    new = {"grad_norm": gradient_norms(training.engine), "accuracy": accuracy(training.engine)}
    return {name: training.seen.get(name, {}) | values for name, values in new.items()}


def _speed(training: Training) -> float:
    """Return the images per second since the last line of the log, and note this one; 0 if none."""
    images, seconds = training.images - training.since[0], training.seconds - training.since[1]
    training.since = training.images, training.seconds
    return round(images / seconds, 2) if images > 0 and seconds > 0 else 0.0


def _save(training: Training, console: Console) -> None:
    """Commit a checkpoint, or roll back when a step or the state is not finite."""
    try:
        training.engine.guard.confirm()
    except DivergedError as error:
        _recover(training, error, console)  # this saves, too
        return
    numbers = {
        "step": training.done,
        "epoch": training.epoch,
        "images": training.images,
        "seconds": training.seconds,
        "rollbacks": training.engine.rollbacks,
        "terms": training.losses,
        "seen": _seen(training),
        "monitor": training.monitor.state(),
        "warnings": training.warnings,
        "measured": as_numbers(training.measured),
    }
    training.refresh_average()
    state = training.engine.state(numbers)
    for name, tensor in (state.model | state.optimizer | state.latents).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            what = f"step {training.done}: {name} is not finite, so it is not saved"
            _roll_back(training, what, console)
            return
    if is_first():
        training.run.flush_log()  # before the commit: what it says of these steps is needed too
        checkpoint.save(training.run, state, training.recipe.train.keep, training.best_step)
    training.saved = training.done
