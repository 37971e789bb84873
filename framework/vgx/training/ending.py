"""How a training ends: noted, and its page written, whatever ended it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from vgx.console import Voice
from vgx.errors import DivergedError, Stopped
from vgx.files import write_file
from vgx.parts.registry import Registry
from vgx.report.run_page import write
from vgx.runs.frames import timelapse
from vgx.training.loop import Training


@contextlib.contextmanager
def closing(training: Training, registry: Registry, voice: Voice) -> Iterator[None]:
    """Note how the training in the block ends, and write the page then, whatever it was."""
    (training.run.path / "ended.json").unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        _close(training, registry, voice, error)
        raise
    _close(training, registry, voice, None)


def _close(training: Training, registry: Registry, voice: Voice, error: Exception | None) -> None:
    how = "stopped" if isinstance(error, Stopped) else "diverged"
    if not isinstance(error, Stopped | DivergedError):
        how = "failed" if error else "done"
    ended = {
        "how": how,
        "step": training.done,
        "of": training.engine.steps,
        "signal": training.stop if how == "stopped" else None,
        "message": str(error or ""),
    }
    try:
        write_file(training.run.path / "ended.json", json.dumps(ended, indent=1) + "\n")
        timelapse(training.run)
        path = write(training.run, registry, training.store, training.engine.device)
        voice.say(f"Report {path}")
    except Exception as fault:  # noqa: BLE001 - the run's own end is what counts
        voice.warn(f"no report of {training.run.path}: {type(fault).__name__}: {fault}")
