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
from vgx.output import short
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx_figures.drawing import (
    DASHES,
    LARGEST,
    TICKS,
    Plot,
    chosen,
    colour,
    in_lines,
    legend,
    logarithmic,
    lowest,
    panels,
    plain,
)
from vgx_figures.groups import Group, named

LINES = 2000  # most steps in a curve
AXES = {"step": "step", "images": "images", "seconds": "time (s)"}
Field = Literal[
    "losses", "metrics", "rates", "grad_norm", "accuracy", "codebook", "figures",
    "images_per_second",
]  # fmt: skip
FIELDS: tuple[Field, ...] = (
    "losses", "metrics", "rates", "grad_norm", "accuracy", "codebook", "figures",
    "images_per_second",
)  # fmt: skip
By = Literal["step", "images", "seconds"]
Rows = NDArray[np.float64]
Logged = dict[str, dict[int, tuple[float, float]]]  # by name and step: a position and a value


def draw_curves(
    groups: Sequence[Group],
    width: float,
    *,
    terms: Sequence[str] = (),
    smooth: float = 0.0,
    by: By = "step",
    log: bool = False,
) -> Plot:
    """Draw what was logged, by default all terms and metrics, one panel for each.

    The line of several seeds is their mean, at the steps that all of them logged; its band is one
    standard deviation to either side. `smooth` is the share of the past in an exponential mean; the
    line of a single run has its values behind it. `by` is the horizontal axis, and with `log` the
    vertical one is logarithmic. Raises `RecipeError` for a term that no run logged.
    """
    if by not in AXES:
        raise vgx.RecipeError(f"by: {by!r}: write {', '.join(AXES)}")
    if not 0 <= smooth < 1:
        raise vgx.RecipeError(f"smooth: {smooth!r}: write a number from 0 to 0.99")
    everything = bool(terms)
    logs = [[logged(run, by, everything=everything) for run in group.runs] for group in groups]
    names = chosen((each for of_runs in logs for each in of_runs), terms, "logged")
    figure, axes = panels(len(names), width)
    lines: dict[str, Artist] = {}
    for name, panel in zip(names, axes, strict=True):
        for i, (group, of_runs) in enumerate(zip(groups, logs, strict=True)):
            if rows := [each[name] for each in of_runs if name in each]:
                lines[plain(group.label)] = _line(panel, rows, i, smooth)
        _finish(panel, in_lines(name, panel), log=log)
        if lowest(panel, axes):
            panel.set_xlabel(AXES[by])
    legend(figure, lines)
    caption = f"{', '.join(map(short, names))} by {AXES[by]}: {named(groups)}."
    if any(len(group.runs) > 1 for group in groups):
        caption += (
            " A line is the mean over seeds, and its band one standard deviation to each side."
        )
    if smooth:
        caption += f" Smoothed: exponential mean, {smooth:g} of the past."
    return Plot(figure, caption)


def logged(run: Run, by: By, *, everything: bool = False) -> Logged:
    """Return the positions and values of what a run logged, by name and step.

    These are losses and metrics; a metric with the name of a loss is called `metrics/NAME`. With
    `everything`, also all else, under the names that trackers have: `grad_norm/encoder`.
    """
    lines = run.read_log()
    losses = {name for line in lines for name in line.get("losses", {})}
    found: Logged = {}
    for field in FIELDS if everything else FIELDS[:2]:
        for line in (line for line in lines if line.get(field)):
            x = float(line.get(by, 0.0))
            for name, value in _numbers(line, field, losses).items():
                drawn = value if abs(value) < LARGEST else math.nan
                found.setdefault(name, {})[line["step"]] = (x, drawn)
    return found


def _numbers(line: reading.Line, field: Field, losses: set[str]) -> dict[str, float]:
    """Return the numbers of a field of a line by the names that they have in a figure."""
    if field == "losses":
        return line["losses"]
    if field == "images_per_second":
        return {field: line[field]}
    bare = field == "metrics"
    return {
        name if bare and name not in losses else f"{field}/{name}": value
        for name, value in line[field].items()
    }


def means(rows: Sequence[dict[int, tuple[float, float]]], smooth: float) -> tuple[Rows, Rows, Rows]:
    """Return positions, means and standard deviations [S] over runs, at the steps of all.

    Of more than 2,000 steps some are chosen evenly. Raises `StorageError` when there are none.
    """
    steps = np.array(sorted(set.intersection(*map(set, rows))))
    if not len(steps):
        raise vgx.StorageError("no step was logged by all seeds of a recipe; draw them one by one")
    # Not by vgx.runs.frames, which would import PyTorch.
    steps = steps[np.linspace(0, len(steps) - 1, min(len(steps), LINES)).round().astype(int)]
    points = np.array([[row[step] for step in steps.tolist()] for row in rows])  # [R, S, 2]
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
    if log:
        drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in panel.lines])
        logarithmic(panel, drawn)
    else:
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=TICKS, min_n_ticks=3))
