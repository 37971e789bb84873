"""What evaluations found, as a person reads it; nothing here imports torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("reconstruction", "latent")
Figure = dict[str, Any]  # mean, spread, values, better


def tables(said: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return an evaluation as a person reads it: titles, headers and rows."""
    shown: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    for kind in KINDS:
        if (part := said[kind]) is not None:
            title = f"{kind}: {part['pictures']:,} pictures, {part['split']}"
            shown.append((title, ("figure", "value"), _rows([part])))
    if drawn := said["generation"]:
        title = "generation: {pictures:,} pictures of each sampler against {real:,}, {split}"
        header = ("figure", *(part["sampler"]["type"] for part in drawn))
        shown.append((title.format(**drawn[0]), header, _rows(drawn)))
    return shown


def _rows(parts: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for name, first in parts[0]["figures"].items():
        cells = [value_and_spread(part["figures"][name]) for part in parts]
        rows.append((with_direction(name, first["better"]), *cells))
    return rows


def with_direction(name: str, better: str | None) -> str:
    """Return a figure's name, and which of two values is the better one."""
    return name + {"higher": " (more is better)", "lower": " (less is better)", None: ""}[better]


def value_and_spread(figure: Figure) -> str:
    """Return a mean with four significant digits and its spread over seeds."""
    text = f"{figure['mean']:.4g}"
    return f"{text} ± {figure['spread']:.2g}" if figure["spread"] else text


def number(value: object) -> float | None:
    """Return a finite number in six digits, else nothing: JSON knows no others."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def time_of(seconds: float) -> str:
    """Return how long something took as one says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


# --- several evaluations -----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One figure of several runs."""

    name: str
    cells: list[str]  # a run each; nothing of one that does not have it
    best: int | None  # the run that is better than each other one by more than the spread


@dataclass(frozen=True)
class Side:
    """A table of figures, and why its runs cannot be held against each other, if so."""

    title: str
    rows: list[Row]
    apart: str


def side_by_side(evaluations: Sequence[dict[str, Any]]) -> list[Side]:
    """Lay the evaluations of several runs beside each other; an empty one is of a run not judged.

    A figure is the best where it is better than each other one by more than the two spreads
    together, and where all were measured in the same way.
    """
    parts: dict[str, list[dict[str, Any] | None]] = {}
    for i, said in enumerate(evaluations):
        for title, part in _parts(said):
            parts.setdefault(title, [None] * len(evaluations))[i] = part
    # Reconstructions first, then each sampler, then the latents.
    ordered = sorted(parts, key=lambda title: (title == "latent") - (title == "reconstruction"))
    return [_side(title, parts[title], evaluations) for title in ordered]


def _parts(said: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [(kind, said[kind]) for kind in KINDS if said.get(kind)]
    drawn = [(f"samples of {p['sampler']['type']}", p) for p in said.get("generation", [])]
    return [*found, *drawn]


def _side(
    title: str, parts: Sequence[dict[str, Any] | None], evaluations: Sequence[dict[str, Any]]
) -> Side:
    there = [
        (said, part) for said, part in zip(evaluations, parts, strict=True) if part is not None
    ]
    apart = _apart(there)
    names = dict.fromkeys(name for _, part in there for name in part["figures"])
    rows = []
    for name in names:
        figures = [None if part is None else part["figures"].get(name) for part in parts]
        better = next(figure["better"] for figure in figures if figure is not None)
        drawn = title != "reconstruction"  # there no chance is in it: one measurement tells all
        rows.append(
            Row(
                with_direction(name, better),
                ["-" if figure is None else value_and_spread(figure) for figure in figures],
                None if apart else _best(figures, better, drawn=drawn),
            )
        )
    return Side(title, rows, apart)


def _apart(there: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Say what was measured in another way, so that two figures are no measure of the runs."""
    ways = [
        {
            "versions of vgx eval": {"": said["format"]},
            "pictures": {"": said["data"]["content"]},
            "number of pictures": {"": [part["pictures"], part.get("real")]},
            "split": {"": part["split"]},
            # Of metrics and networks that only one was judged by there is nothing to hold together.
            "metrics": {metric["type"]: metric for metric in said["metrics"]},
            "feature networks": {str(each["part"]): each["sha256"] for each in said["features"]},
        }
        for said, part in there
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
    named = " and the ".join(differ)
    return f"Not measured alike, so none is marked: the {named} differ." if differ else ""


def _best(figures: Sequence[Figure | None], better: str | None, *, drawn: bool) -> int | None:
    """Return which is better than each other one by more than the two spreads together."""
    known = {i: figure for i, figure in enumerate(figures) if figure is not None}
    if better is None or len(known) < 2:
        return None
    if drawn and any(len(figure["values"]) < 2 for figure in known.values()):
        return None  # one seed knows no spread
    sign = 1 if better == "higher" else -1
    best = max(known, key=lambda i: sign * known[i]["mean"])
    clear = all(
        abs(known[best]["mean"] - other["mean"]) > known[best]["spread"] + other["spread"]
        for i, other in known.items()
        if i != best
    )
    return best if clear else None
