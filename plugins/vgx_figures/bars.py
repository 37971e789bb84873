"""Bars of the metrics of `vgx eval`, and the gradients that the audit measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

import vgx
from vgx.evaluation.tables import KINDS
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx_figures.drawing import (
    COLOURS,
    LARGEST,
    LETTER,
    MARKERS,
    TICKS,
    Plot,
    chosen,
    in_lines,
    legend,
    new_figure,
    panels,
    plain,
)
from vgx_figures.groups import Group, named
from vgx_report.tables import side_by_side

ARROWS = {"higher": " ↑", "lower": " ↓"}
BARS = 12  # samplers and the like in one panel, at most
NARROW = 27.0  # millimetres of a panel of bars, at least
ROW = 4.5  # millimetres of a term
Values = dict[str, dict[str, tuple[list[float], float]]]  # by metric and bar: values and spread


def draw_metrics(groups: Sequence[Group], width: float, *, terms: Sequence[str] = ()) -> Plot:
    """Draw the metrics of evaluations as bars with their spread, one panel for each metric.

    Metrics of samples have a bar for each sampler. The bar of several seeds is the mean of these
    trainings, and its spread their standard deviation; the spread of a single run is that over
    seeds of drawing. Dots are the single values. Raises `StorageError` for a run that was not
    evaluated.
    """
    evaluations = [[_evaluation(run) for run in group.runs] for group in groups]
    flat = [each for of_runs in evaluations for each in of_runs]
    unlike = _unlike(flat)
    of_groups = [_together(list(map(_values, of_runs))) for of_runs in evaluations]
    names = chosen(of_groups, terms, "measured")
    better = {k: v for each in flat for k, v in _directions(each).items()}
    figure, axes = panels(len(names), width, 1.1, NARROW)
    handles: dict[str, Artist] = {}
    for name, panel in zip(names, axes, strict=True):
        bars = list(dict.fromkeys(bar for values in of_groups for bar in values.get(name, {})))
        bars = bars[:BARS]
        for i, (group, values) in enumerate(zip(groups, of_groups, strict=True)):
            own = values.get(name, {})
            if not own.keys().isdisjoint(bars):
                handles[plain(group.label)] = _bars(panel, bars, own, i, len(groups))
        panel.set_title(in_lines(f"{name}{ARROWS.get(better[name] or '', '')}", panel))
        panel.set_xticks(range(len(bars)), [*map(plain, bars)])
        if len(bars) > 1:
            panel.tick_params("x", rotation=30)
            for text in panel.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
        panel.tick_params("x", length=0)
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=TICKS))
    legend(figure, handles)
    return Plot(figure, f"Metrics of {named(groups)}. {_spread_of(groups)}{unlike}")


def _unlike(evaluations: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on what was not measured alike, or ""; a `Notice` says it too."""
    tables = [table for table in side_by_side(evaluations) if table.warning]
    if not tables:
        return ""
    reasons: dict[str, list[str]] = {}
    for table in tables:
        reasons.setdefault(table.warning.partition(": ")[2], []).append(table.title)
    why = " ".join(f"{', '.join(titles)}: {reason}" for reason, titles in reasons.items())
    text = f"These runs were not measured alike, so do not compare their bars. {why}"
    warnings.warn(text, vgx.Notice, stacklevel=2)
    return f" {text}"


def _spread_of(groups: Sequence[Group]) -> str:
    several = any(len(group.runs) > 1 for group in groups)
    one = any(len(group.runs) == 1 for group in groups)
    texts = ["standard deviation over trainings with other seeds"] * several
    of_images = "or of reconstructions the standard error over images"
    of_seeds = f"standard deviation over seeds of drawing, {of_images}"
    texts += [f"{'of a single run ' * several}{of_seeds}"] * one
    return f"Error bars: {'; '.join(texts)}. Dots: single values."


def _evaluation(run: Run) -> dict[str, Any]:
    """Return the evaluation of a run. Raises `StorageError` for none, and for a damaged one."""
    results = {**(reading.evaluation(run.path) or {})}
    if not results:
        raise vgx.StorageError(f"{run.path}: was not evaluated yet: vgx eval {run.short}")
    try:
        side_by_side([results, results])
    except (LookupError, TypeError, AttributeError) as error:
        damaged = f"{run.path / 'evaluation.json'}: {type(error).__name__}: {error}"
        raise vgx.StorageError(f"{damaged}; evaluate again: vgx eval {run.short}") from None
    return results


def _parts(results: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Give the name of the bar and the figures of each part of an evaluation."""
    for kind in KINDS:
        if results.get(kind):
            yield "", results[kind]["figures"]
    for part in results.get("generation", []):
        yield str(part.get("sampler", {}).get("type")), part["figures"]


def _title(name: str, figure: dict[str, Any]) -> str:
    return f"{name} [{figure['features']}]" if figure.get("features") else name


def _directions(results: dict[str, Any]) -> dict[str, str | None]:
    return {
        _title(name, figure): figure.get("better")
        for _, figures in _parts(results)
        for name, figure in figures.items()
    }


def _values(results: dict[str, Any]) -> Values:
    """Return the values of one run's evaluation over seeds of drawing, and their spread."""
    values: Values = {}
    for bar, figures in _parts(results):
        for name, figure in figures.items():
            if abs(figure["mean"]) < LARGEST:
                of_seeds = [v for v in figure.get("values", []) if abs(v) < LARGEST]
                each = of_seeds or [figure["mean"]], figure.get("spread", 0.0)
                values.setdefault(_title(name, figure), {})[bar] = each
    return values


def _together(runs: Sequence[Values]) -> Values:
    """Return the values of a group: those of a single run, or the mean of each of several."""
    if len(runs) == 1:
        return runs[0]
    means: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, bars in run.items():
            for bar, (values, _) in bars.items():
                means.setdefault(name, {}).setdefault(bar, []).append(float(np.mean(values)))
    return {
        name: {bar: (each, _deviation(each)) for bar, each in bars.items()}
        for name, bars in means.items()
    }


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _bars(
    panel: Axes,
    bars: Sequence[str],
    values: dict[str, tuple[list[float], float]],
    number: int,
    of: int,
) -> Artist:
    """Draw one group's bars of one metric, beside those of the other groups."""
    wide = 0.8 / of
    places = {bar: i - 0.4 + wide * (number + 0.5) for i, bar in enumerate(bars) if bar in values}
    drawn = panel.bar(
        list(places.values()),
        [float(np.mean(values[bar][0])) for bar in places],
        0.9 * wide,
        yerr=[values[bar][1] for bar in places],
        color=COLOURS[number % len(COLOURS)],
        error_kw={"elinewidth": 0.8, "capsize": 2},
    )
    for bar, place in places.items():
        points = values[bar][0]
        if len(points) > 1:
            xs = place + wide * np.linspace(-0.2, 0.2, len(points))
            panel.plot(xs, points, "o", color="white", markeredgecolor="black", markersize=2,
                       markeredgewidth=0.4)  # fmt: skip
    panel.set_xlim(-0.6, len(bars) - 0.4)
    return drawn.patches[0]


def draw_gradients(groups: Sequence[Group], width: float, *, terms: Sequence[str] = ()) -> Plot:
    """Draw the gradient norm of each term in each network before the first step, of the audit.

    A mark of several seeds is their mean, with a line from the smallest to the largest. Raises
    `StorageError` for a run without an audit.
    """
    norms = [_norms(group) for group in groups]
    names = chosen(norms, terms, "audited")
    networks = list(dict.fromkeys(n for group in norms for of in group.values() for n in of))
    height = len(groups) * (len(names) * ROW + 8) + 10
    figure = new_figure(width, height)
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    handles: dict[str, Artist] = {}
    for group, values, panel in zip(groups, norms, axes, strict=True):
        for i, network in enumerate(networks[: len(MARKERS)]):
            rows = [row for row, name in enumerate(names) if values.get(name, {}).get(network)]
            each = [values[names[row]][network] for row in rows]
            means = np.array([np.mean(numbers) for numbers in each])
            ends = np.array([[m - min(n), max(n) - m] for m, n in zip(means, each, strict=True)])
            drawn = panel.errorbar(
                means, rows, xerr=ends.reshape(-1, 2).T, fmt=MARKERS[i], color=COLOURS[i],
                elinewidth=0.8, alpha=0.9,
            )  # fmt: skip
            handles[plain(network)] = drawn.lines[0]
        letters = int((width / 2 - 4) / LETTER)
        panel.set_yticks(range(len(names)), [plain(_cut(_short(n), letters)) for n in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="y", linewidth=0.3, color="0.85")
        panel.set_axisbelow(True)
        panel.tick_params("y", length=0)
        panel.set_xscale("log")
        if len(groups) > 1:
            panel.set_title(in_lines(group.label, panel))
    axes[-1].set_xlabel("gradient norm")
    legend(figure, handles)
    caption = f"Gradient norm of each term in each network before the first step: {named(groups)}."
    if any(len(group.runs) > 1 for group in groups):
        caption += " Mark: mean over seeds; line: from the smallest to the largest."
    return Plot(figure, caption)


def _norms(group: Group) -> dict[str, dict[str, list[float]]]:
    """Return the norms over the runs of a group by term and network; none where it moves nothing.

    A norm of 0 has no place on a logarithmic axis either.
    """
    norms: dict[str, dict[str, list[float]]] = {}
    for run in group.runs:
        audit = reading.audit(run.path)
        if not (audit and audit.get("flows")):
            raise vgx.StorageError(f"{run.path}: has no audit, so it has no gradients to draw")
        for flow in audit["flows"]:
            of_term = norms.setdefault(flow["label"], {})
            for network, norm in flow["norms"].items():
                if norm is not None and 1 / LARGEST < norm < LARGEST:
                    of_term.setdefault(network, []).append(norm)
    return norms


def _short(name: str) -> str:
    """Return a term as the progress of a training names it."""
    return name.replace(".generator", " G").replace(".discriminator", " D")


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
