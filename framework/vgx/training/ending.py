"""The end of a training: written to `ended.json`, and each plugin is called, whatever ended it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from vgx.console import Console
from vgx.errors import DivergedError, Stopped
from vgx.files import write_file
from vgx.parts.registry import Registry, failure_of
from vgx.runs.frames import timelapse
from vgx.training.loop import Training


@contextlib.contextmanager
def closing(training: Training, registry: Registry, console: Console) -> Iterator[None]:
    """Write how the training in the block ends, then call `run_ended` of each plugin."""
    (training.run.path / "ended.json").unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        _close(training, registry, console, error)
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
        "signal": training.stop if how == "stopped" else None,
        "message": str(error or ""),
    }

    def note() -> None:
        write_file(run.path / "ended.json", json.dumps(ended, indent=1) + "\n")
        timelapse(run)

    if failure := failure_of(note):
        console.warn(f"the end of {run.path} is not noted: {failure}")
    for plugin in registry.plugins:
        if failure := plugin.call("run_ended", run=run):
            console.warn(f"plugin {plugin.title} failed at the end of {run.path}: {failure}")
