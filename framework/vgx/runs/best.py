"""The best measurement of each metric: in the log of a run, and in its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.reading import Line


class Measurement(NamedTuple):
    """The value of a metric and the step that it was measured after."""

    value: float
    step: int


def best_of(
    lines: Iterable[Line], name: str, better: str, best: Measurement | None = None
) -> Measurement | None:
    """Return the best measurement of a metric in lines of a log, the first of equal ones.

    `better` is "higher" or "lower". `best` is the best one of earlier lines, so a log that grows
    is never read twice. A value that is not finite is no measurement. None means that nothing was
    measured.
    """
    for line in lines:
        if math.isfinite(line.get("metrics", {}).get(name, math.nan)):
            new = Measurement(line["metrics"][name], line["step"])
            sign = 1 if better == "higher" else -1
            if best is None or sign * new.value > sign * best.value:
                best = new
    return best


class Measured(NamedTuple):
    """What was measured of one metric while training."""

    last: float
    best: Measurement

    @property
    def text(self) -> str:
        """The last value and the best one, for people."""
        return f"{self.last:.4g} (best {self.best.value:.4g} at step {self.best.step:,})"


def measured_in(
    lines: Sequence[Line], better: Mapping[str, str], before: Mapping[str, Measured]
) -> dict[str, Measured]:
    """Return the measurements of each metric in lines of a log, added to those of earlier lines.

    `better` says of each metric which value is better.
    """
    measured = dict(before)
    for name, direction in better.items():
        earlier = measured.get(name)
        best = best_of(lines, name, direction, earlier and earlier.best)
        last = [line["metrics"][name] for line in lines if name in line.get("metrics", ())]
        if best and last:
            measured[name] = Measured(last[-1], best)
    return measured


def measured_until(
    run: Run, numbers: Mapping[str, Any], better: Mapping[str, str]
) -> dict[str, Measured]:
    """Return the measurements up to a checkpoint, whose plain numbers these are.

    They stand in the checkpoint, so a damaged log loses none. A checkpoint of an earlier version
    has none: then they are read in the log.
    """
    if "measured" in numbers:
        noted: dict[str, reading.Best] = numbers["measured"]
        return {
            name: Measured(each["last"], Measurement(each["value"], each["step"]))
            for name, each in noted.items()
            if name in better
        }
    lines = (entry.line for entry in reading.entries(run.path))
    return measured_in([line for line in lines if line and line["step"] <= numbers["step"]],
                       better, {})  # fmt: skip


def as_numbers(measured: Mapping[str, Measured]) -> dict[str, reading.Best]:
    """Return measurements as a checkpoint notes them."""
    return {
        name: {"last": each.last, "value": each.best.value, "step": each.best.step}
        for name, each in measured.items()
    }
