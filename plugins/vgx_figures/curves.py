"""Curves of what runs logged: one panel for each term and metric.

Letters: R runs of a group, S logged steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

import vgx
from vgx_figures.drawing import (
    DASHES,
    PANELS,
    Plot,
    colour,
    in_lines,
    legend,
    lowest,
    panels,
    plain,
)
from vgx_figures.groups import Group, named

LINES = 2000  # most lines of a log in a curve
LARGEST = 1e100  # the sums and squares of such values are finite too
TICKS = (1, 2, 5, 10)
AXES = {"step": "step", "images": "images", "seconds": "time (s)"}
FIELDS: tuple[Literal["losses", "metrics"], ...] = ("losses", "metrics")
By = Literal["step", "images", "seconds"]
Rows = NDArray[np.float64]
Logged = dict[str, dict[int, tuple[float, float]]]  # by name and step: a position and a value


def draw(
    groups: Sequence[Group],
    width: float,
    *,
    terms: Sequence[str] = (),
    smooth: float = 0.0,
    by: By = "step",
    log: bool = False,
) -> Plot:
    """Draw terms and metrics of logs, by default all, one panel for each.

    The line of several seeds is their mean, at the steps that all of them logged; its band is one
    standard deviation to either side. `smooth` is the share of the past in an exponential mean; the
    line of a single run has its values behind it. `by` is the horizontal axis, and with `log` the
    vertical one is logarithmic. Raises `RecipeError` for a term that no run logged.
    """
    if by not in AXES:
        raise vgx.RecipeError(f"by: {by!r}: write {', '.join(AXES)}")
    if not 0 <= smooth < 1:
        raise vgx.RecipeError(f"smooth: {smooth!r}: write a number from 0 to 0.99")
    logs = [[logged(run, by) for run in group.runs] for group in groups]
    chosen = _chosen(logs, terms)
    figure, axes = panels(len(chosen), width)
    names: dict[str, Artist] = {}
    for name, panel in zip(chosen, axes, strict=True):
        for i, (group, of_runs) in enumerate(zip(groups, logs, strict=True)):
            if rows := [each[name] for each in of_runs if name in each]:
                names[plain(group.label)] = _line(panel, rows, i, smooth)
        _finish(panel, in_lines(name, panel), log=log)
        if lowest(panel, axes):
            panel.set_xlabel(AXES[by])
    legend(figure, names)
    caption = f"{', '.join(chosen)} by {AXES[by]}: {named(groups)}."
    if any(len(group.runs) > 1 for group in groups):
        caption += (
            " A line is the mean over seeds, and its band one standard deviation to each side."
        )
    if smooth:
        caption += f" Smoothed: exponential mean, {smooth:g} of the past."
    return Plot(figure, caption)


def logged(run: vgx.Run, by: By) -> Logged:
    """Return the positions and values of all that a run logged, by name and step."""
    found: Logged = {}
    for kind in FIELDS:
        lines = [line for line in run.read_log() if line.get(kind)]
        # Not by vgx.runs.frames, which would import PyTorch.
        rows = np.linspace(0, len(lines) - 1, min(len(lines), LINES)).round().astype(int)
        for line in (lines[row] for row in rows):
            for name, value in line[kind].items():
                drawn = value if abs(value) < LARGEST else math.nan  # nothing else can be drawn
                found.setdefault(name, {})[line["step"]] = (float(line.get(by, 0.0)), drawn)
    return found


def _chosen(logs: Sequence[Sequence[Logged]], terms: Sequence[str]) -> list[str]:
    """Return the names to draw, in the order in which they are asked for, or were logged."""
    known = list(dict.fromkeys(name for group in logs for each in group for name in each))
    if not known:
        raise vgx.StorageError("nothing was logged yet, so there are no curves")
    if unknown := [name for name in terms if name not in known]:
        names = ", ".join(map(repr, known[:PANELS]))
        raise vgx.RecipeError(f"terms: {unknown[0]!r} was not logged; the runs have {names}")
    chosen = list(dict.fromkeys(terms)) or known
    if len(chosen) > PANELS:
        raise vgx.RecipeError(f"terms: {len(chosen)} panels; choose at most {PANELS}")
    return chosen


def means(rows: Sequence[dict[int, tuple[float, float]]], smooth: float) -> tuple[Rows, Rows, Rows]:
    """Return positions, means and standard deviations [S] over runs, at the steps of all."""
    steps = sorted(set.intersection(*map(set, rows)))
    points = np.array([[row[step] for step in steps] for row in rows])  # [R, S, 2]
    points = points.reshape(len(rows), len(steps), 2)
    values = np.array([smoothed(row, smooth) for row in points[..., 1]])  # [R, S]
    spread = values.std(0, ddof=1) if len(rows) > 1 else np.zeros(len(steps))
    return points[..., 0].mean(0), values.mean(0), spread


def smoothed(values: Rows, share: float) -> Rows:
    """[S]  Return the exponential mean of values [S], as the page of a run draws it."""
    total, weight, means = 0.0, 0.0, np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if np.isfinite(value):
            total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
            means[i] = total / weight
    return means


def _line(
    panel: Axes, rows: Sequence[dict[int, tuple[float, float]]], number: int, smooth: float
) -> Line2D:
    """Draw one group's values of one name."""
    x, mean, spread = means(rows, smooth)
    marker = "o" if len(x) == 1 else ""
    if len(rows) > 1:
        low, high = mean - spread, mean + spread
        panel.fill_between(x, low, high, color=colour(number), alpha=0.2, linewidth=0)
    elif smooth:
        raw = means(rows, 0.0)[1]
        panel.plot(x, raw, color=colour(number), alpha=0.3, linewidth=0.5)
    style = DASHES[number % len(DASHES)]
    (line,) = panel.plot(x, mean, color=colour(number), linestyle=style, marker=marker)
    return line


def _finish(panel: Axes, name: str, *, log: bool) -> None:
    panel.set_title(name)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=TICKS))
    panel.margins(x=0.02)
    positive = [line for line in panel.lines if (np.asarray(line.get_ydata()) > 0).any()]
    if log and positive:
        panel.set_yscale("log", nonpositive="mask")
    else:
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=TICKS, min_n_ticks=3))
