"""The end of a training: written to `ended.json`, and each plugin is called, whatever ended it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from vgx.console import Console, images_per_second
from vgx.distributed.group import alone, is_first
from vgx.errors import DivergedError, Stopped
from vgx.files import storage, write_file
from vgx.notebook import run as people
from vgx.parts.registry import Registry, failure_of
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.frames import timelapse
from vgx.training.loop import short
from vgx.training.state import Training


@contextlib.contextmanager
def closing(training: Training, registry: Registry, console: Console) -> Iterator[None]:
    """Write how the training in the block ends, then call `run_ended` of each plugin."""
    if not is_first():
        yield
        return
    ended = training.run.place("ended.json")
    with storage(ended):
        ended.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        _close(training, registry, console, error)
        raise
    except GeneratorExit:  # the loop around the training was left after its last step
        _close(training, registry, console, None)
        raise
    _close(training, registry, console, None)


def _close(
    training: Training, registry: Registry, console: Console, error: Exception | None
) -> None:
    """Write `ended.json` and call the plugins; a failure here is a warning and hides no error."""
    run, how = training.run, "failed" if error else "done"
    if isinstance(error, Stopped | DivergedError):
        how = "stopped" if isinstance(error, Stopped) else "diverged"
    ended = {
        "how": how,
        "step": training.done,
        "of": training.engine.steps,
        "signal": (training.stop or None) if how == "stopped" else None,
        "message": str(error or training.exhausted),
    }

    if how in ("done", "stopped"):
        for line in filter(None, (*summary(training), training.exhausted)):
            console.print(line)

    def note() -> None:
        image = training.recipe.image
        write_file(run.place("ended.json"), json.dumps(ended, indent=1, ensure_ascii=False) + "\n")
        timelapse(run, image.height * image.width)

    if failure := failure_of(note):
        console.warn(f"the end of {run.path} is not noted: {failure}")
    call_plugins(run, registry, console)


def call_plugins(run: Run, registry: Registry, console: Console) -> None:
    """Call the hook `run_ended` of each plugin; a failure there is a warning."""
    with alone():  # of several processes the first one calls them
        for plugin in registry.plugins:
            if failure := plugin.call("run_ended", run=people.Run(run.path)):
                console.warn(f"plugin {plugin.title} failed at the end of {run.path}: {failure}")


def note_done(run: Run) -> None:
    """Note that a run is done whose networks were trained to the end, and now its prior is too."""
    ended = reading.unless_damaged(reading.ended, run.path)
    if ended is not None and ended["how"] != "done" and ended["step"] == ended["of"]:
        done = {**ended, "how": "done", "signal": None, "message": ""}
        write_file(run.place("ended.json"), json.dumps(done, indent=1, ensure_ascii=False) + "\n")


def summary(training: Training) -> list[str]:
    """Return the steps, time and speed of a training, its terms and its metrics, as lines."""
    entries = reading.entries(training.run.path)
    # A log may be long: only its beginning and its end are read.
    first = next((e.line["losses"] for e in entries if e.line and e.line.get("losses")), None)
    last = reading.last_line(training.run.path)
    if not (first and last and training.seconds):
        return []
    minutes, seconds = divmod(round(training.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    time = " ".join(f"{number} {unit}" for number, unit in units if number) or "less than 1 s"
    terms = [
        f"{short(name)} {first[name]:.3g} -> {value:.3g}"
        for name, value in last.get("losses", {}).items()
        if name in first
    ]
    of = training.engine.steps
    steps = f"{training.done:,}" + (f" of {of:,}" if training.done < of else "")
    steps += " step" if of == 1 else " steps"
    lines = [f"Trained {steps} in {time}, {images_per_second(training.images / training.seconds)}"]
    lines.append(f"First and last losses: {', '.join(terms)}")
    metrics = [f"{name} {values.text}" for name, values in training.measured.items()]
    return lines + ([f"Last metrics: {', '.join(metrics)}"] if metrics else [])
