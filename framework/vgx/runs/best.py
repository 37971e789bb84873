"""The best measurement in the log of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class Measurement(NamedTuple):
    """The value of a metric and the step that it was measured after."""

    value: float
    step: int


def best_of(
    lines: Iterable[dict[str, Any]], name: str, better: str, best: Measurement | None = None
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
