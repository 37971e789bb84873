"""Trackers of a run: opened, given what the log gets, and closed when they fail.

A tracker cannot change the training: it gets copies, and its error ends only the tracker.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vgx.errors import RecipeError, by_user
from vgx.parts.kinds import OpenTracker, Tracker
from vgx.parts.registry import line_of

# Of a line of the log.
GROUPS = ("losses", "rates", "grad_norm", "accuracy", "codebook", "figures", "metrics")
SPEED = "images_per_second"


def require_libraries(parts: Sequence[Tracker]) -> None:
    """Raise `RecipeError` that names the package to install when a tracker's library is missing."""
    for part in parts:
        if part.needs is not None and importlib.util.find_spec(part.needs) is None:
            raise RecipeError(
                f"trackers: {part.type} needs {part.needs}, which is not installed: "
                f"pip install {part.needs}, or leave it out"
            )


@dataclass
class Trackers:
    """The open trackers of one run, by type."""

    active: dict[str, OpenTracker] = field(default_factory=dict)
    warn: Callable[[str], None] = print

    def log(self, line: dict[str, Any]) -> None:
        """Record the values of a line of the log."""
        for name, tracker in [*self.active.items()]:
            values = {f"{g}/{key}": value for g in GROUPS for key, value in line.get(g, {}).items()}
            values |= {SPEED: line[SPEED]} if SPEED in line else {}
            with self._setting_aside(name, tracker):
                tracker.log(line["step"], values)

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Record a grid [C, H, W] in [0, 1]."""
        for type_name, tracker in [*self.active.items()]:
            with self._setting_aside(type_name, tracker):
                tracker.images(step, name, grid.clone())

    def close(self) -> None:
        """Close all that are still open."""
        for name, tracker in [*self.active.items()]:
            with self._setting_aside(name, tracker):
                tracker.close()
        self.active.clear()

    def open(self, part: Tracker, run: Path) -> None:
        """Open one more tracker of a run directory."""
        with self._setting_aside(part.type, part):
            tracker = part.build(run)
            if tracker is None:
                raise TypeError("its build() returns None")
            self.active[part.type] = tracker

    @contextmanager
    def _setting_aside(self, name: str, owner: object) -> Iterator[None]:
        """Use a tracker no longer when it fails in the block."""
        try:
            yield
        except BaseException as error:  # a tracker must not end a training
            if by_user(error):
                raise
            self.active.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            line = line_of(error, type(owner).__module__)
            place = f" (at {line})" if line else ""
            self.warn(f"tracker {name} is set aside: {type(error).__name__}: {first}{place}")


def open_trackers(parts: Sequence[Tracker], run: Path, warn: Callable[[str], None]) -> Trackers:
    """Open the trackers of a run directory; those that fail are left out with a warning."""
    trackers = Trackers(warn=warn)
    for part in parts:
        trackers.open(part, run)
    return trackers
