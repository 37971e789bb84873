"""Trackers of a run: opened, told what the log is told, and set aside when they fail.

Whatever a tracker does, the training is the same: it gets copies, and what it raises ends it alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vgx.errors import RecipeError
from vgx.parts.kinds import OpenTracker, Tracker

GROUPS = ("losses", "rates", "metrics")  # of a line of the log


def look_for(parts: Sequence[Tracker]) -> None:
    """Raise `RecipeError` that says what to install when a tracker's library is not there."""
    for part in parts:
        if part.needs is not None and importlib.util.find_spec(part.needs) is None:
            raise RecipeError(
                f"trackers: {part.type} works with {part.needs}, which is not installed: "
                f"pip install {part.needs}, or leave it out"
            )


@dataclass
class Trackers:
    """The open trackers of one run, by type."""

    journals: dict[str, OpenTracker] = field(default_factory=dict)
    warn: Callable[[str], None] = print

    def log(self, line: dict[str, Any]) -> None:
        """Tell of a line of the log."""
        for name, journal in [*self.journals.items()]:
            values = {f"{g}/{key}": value for g in GROUPS for key, value in line.get(g, {}).items()}
            with self._aside(name):
                journal.log(line["step"], values)

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Tell of a grid [C, H, W] in [0, 1]."""
        for tracker, journal in [*self.journals.items()]:
            with self._aside(tracker):
                journal.images(step, name, grid.clone())

    def close(self) -> None:
        """Close all that are still open."""
        for name, journal in [*self.journals.items()]:
            with self._aside(name):
                journal.close()
        self.journals.clear()

    def open(self, part: Tracker, run: Path) -> None:
        """Open one more."""
        with self._aside(part.type):
            self.journals[part.type] = part.build(run)

    @contextmanager
    def _aside(self, name: str) -> Iterator[None]:
        """Set a tracker aside when it fails in the block."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a run is worth more than who follows it
            self.journals.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            self.warn(f"tracker {name} is set aside: {type(error).__name__}: {first}")


def opened(parts: Sequence[Tracker], run: Path, warn: Callable[[str], None]) -> Trackers:
    """Open a run's trackers; those that cannot be opened are set aside."""
    trackers = Trackers(warn=warn)
    for part in parts:
        trackers.open(part, run)
    return trackers
