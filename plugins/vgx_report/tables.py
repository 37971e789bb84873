"""Evaluations of several runs side by side, and the numbers and times of a page."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgx.evaluation.tables import KINDS, Figure, title_of, value_and_spread


def number(value: object) -> float | None:
    """Return a finite number with six digits, or None for anything else: JSON has no NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def listed(texts: Sequence[str]) -> str:
    """Return texts as a list in a sentence."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def time_of(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


@dataclass(frozen=True)
class Row:
    """One figure of several runs."""

    name: str
    cells: list[str]  # one for each run; "-" where a run lacks the figure
    best: int | None  # the run that is better than every other one by more than the spread


@dataclass(frozen=True)
class Table:
    """The figures of several runs, and why they cannot be compared, if they cannot."""

    title: str
    rows: list[Row]
    warning: str


def side_by_side(evaluations: Sequence[dict[str, Any]]) -> list[Table]:
    """Return tables of the evaluations of several runs; {} is a run without an evaluation.

    A figure is the best when it is clearly better than every other one, see `clear`, and when all
    were measured in the same way.
    """
    parts: dict[str, list[dict[str, Any] | None]] = {}
    for i, results in enumerate(evaluations):
        for title, part in _parts(results):
            parts.setdefault(title, [None] * len(evaluations))[i] = part
    # Reconstructions first, then each sampler, then the latents.
    ordered = sorted(parts, key=lambda title: (title == "latent") - (title == "reconstruction"))
    return [_table(title, parts[title], evaluations) for title in ordered]


def _parts(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    kinds = [(kind, results[kind]) for kind in KINDS if results.get(kind)]
    samplers = [(f"samples of {p['sampler']['type']}", p) for p in results.get("generation", [])]
    return [*kinds, *samplers]


def _table(
    title: str, parts: Sequence[dict[str, Any] | None], evaluations: Sequence[dict[str, Any]]
) -> Table:
    measured = [
        (results, part)
        for results, part in zip(evaluations, parts, strict=True)
        if part is not None
    ]
    warning = _difference(measured)
    names = dict.fromkeys(name for _, part in measured for name in part["figures"])
    rows = []
    for name in names:
        figures = [None if part is None else part["figures"].get(name) for part in parts]
        first = next(figure for figure in figures if figure is not None)
        features = dict.fromkeys(f["features"] for f in figures if f and f.get("features"))
        rows.append(
            Row(
                title_of(name, {**first, "features": " and ".join(features)}),
                ["-" if figure is None else value_and_spread(figure) for figure in figures],
                None if warning else _best(figures, first["better"]),
            )
        )
    return Table(title, rows, warning)


def _difference(measured: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Return a warning that names what was measured in different ways, or ""."""
    ways = [
        {
            "versions of vgx eval": {"": results["format"]},
            "images": {"": results["data"]["content"]},
            "number of images": {"": [part["pictures"], part.get("real")]},
            "split": {"": part["split"]},
            # A metric or a feature network that only one run was evaluated with is no difference.
            "metrics": {metric["type"]: metric for metric in results["metrics"]},
            "feature networks": {str(each["part"]): each["sha256"] for each in results["features"]},
        }
        for results, part in measured
    ]
    differ = [
        what
        for what in (ways[0] if ways else {})
        if any(
            one[what][name] != other[what][name]
            for one, other in itertools.combinations(ways, 2)
            for name in one[what].keys() & other[what].keys()
        )
    ]
    names = " and the ".join(differ)
    return f"Not measured alike, so none is marked: the {names} differ." if differ else ""


def _best(figures: Sequence[Figure | None], better: str | None) -> int | None:
    """Return which figure is clearly better than every other one."""
    known = {i: figure for i, figure in enumerate(figures) if figure is not None}
    if better is None or len(known) < 2:
        return None
    sign = 1 if better == "higher" else -1
    best = max(known, key=lambda i: sign * known[i]["mean"])
    others = [figure for i, figure in known.items() if i != best]
    return best if all(clear(known[best], other) for other in others) else None


def clear(one: Figure, other: Figure) -> bool:
    """Return whether two figures differ by more than chance may explain.

    Reconstructions are of the same images, so parts of these are compared with each other: the mean
    of the differences must be more than two of its standard errors. Other figures must differ by
    more than the sum of their spreads over seeds. Of one value alone no spread is known.
    """
    groups = [figure.get("groups", ()) for figure in (one, other)]
    if len(groups[0]) == len(groups[1]) >= 2:
        differences = [a - b for a, b in zip(*groups, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        return bool(abs(statistics.fmean(differences)) > 2 * error)
    if any(len(figure.get("values", ())) < 2 for figure in (one, other)):
        return False
    spreads = one.get("spread", 0.0) + other.get("spread", 0.0)
    return bool(abs(one["mean"] - other["mean"]) > spreads)
