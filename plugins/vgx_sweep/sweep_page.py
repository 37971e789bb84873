"""The page of a study: one HTML file that needs nothing else, drawn like that of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import vgx
from vgx.errors import noticing
from vgx.runs import reading
from vgx.runs.frames import drawn, pixels_of, step_of
from vgx.runs.frames import files as grids_of
from vgx_report.panels import embedding
from vgx_report.run_data import OFFLINE
from vgx_sweep.ablation import HEADER, Difference, table
from vgx_sweep.plan import Plan
from vgx_sweep.results import Importance, Row, best_recipe, shown
from vgx_sweep.space import Range
from vgx_sweep.storage import Study
from vgx_sweep.training import Machine, runs_of

SHOWN = 24  # trials with images, the best first
READINGS = {
    "worse without it": "Worse without", "better without it": "Better without",
    "no difference seen": "No difference is seen without",
}  # fmt: skip


def gather(
    study: Study,
    rows: Sequence[Row],
    importances: Sequence[Importance],
    left_out: Sequence[Difference],
    machine: Machine,
) -> dict[str, Any]:
    """Return all that the page contains, as plain data."""
    plan, notices = study.plan, list[str]()
    base = plan.base(machine.registry, machine.data)
    best = best_recipe(plan, rows, base)
    with noticing(notices):
        images, contents = _images(plan, base, rows, machine)
    if len(contents) > 1:
        notices.append("The runs of this study were not trained on the same images.")
    states = [row.state for row in rows]
    done = states.count("complete")
    counted = [f"{states.count(s):,} {s}" for s in dict.fromkeys(states) if s != "complete"]
    name = {"grid": "all points of a grid", "tpe": "TPE", "random": "random search"}[plan.search]
    title = "Ablation" if plan.changes else "Sweep"
    return {
        "kicker": f"{title} of {base.name}",
        "name": study.name,
        "summary": _summary(plan, rows, importances, left_out),
        "notices": notices,
        "facts": [
            ("points", f"{done:,} of {plan.points:,}" + "".join(f", {text}" for text in counted)),
            ("seeds", f"{plan.seeds:,}"),
            ("by", f"{plan.by}, {plan.better} is better"),
            ("points chosen by", name),
            *([("ended early by", plan.prune)] if plan.prune else []),
        ],
        "by": plan.by,
        "better": plan.better,
        "axes": [
            axis.model_dump()
            if isinstance(axis, Range)
            else {"field": axis.field, "choices": [str(choice) for choice in axis.choices]}
            for axis in plan.over
        ],
        "losses": [loss.label for loss in base.losses],
        "points": [_point(plan, row) for row in rows],
        "importances": [asdict(each) for each in importances],
        "ablation": {"header": HEADER, "rows": table(left_out)} if left_out else None,
        "differences": [asdict(each) for each in left_out],
        "images": images,
        "recipe": best,
        "foot": f"Made by vgx from the study's storage and the runs on this machine. {OFFLINE}",
    }  # fmt: skip


def _point(plan: Plan, row: Row) -> dict[str, Any]:
    """Return a point for the page: places on the axes, and texts for its table."""
    places: list[float | None] = []
    for axis in plan.over:
        value = row.parameters.get(axis.field)
        if value is not None and not isinstance(axis, Range):
            value = axis.choices.index(value)
        places.append(value)
    return {
        "trial": row.trial,
        "state": row.state,
        "places": places,
        "cells": row.cells(plan),
        "mean": row.mean,
        "spread": row.spread,
        "text": row.text,
        "runs": [*row.runs.values()],
        "reason": row.reason,
    }


def _summary(
    plan: Plan,
    rows: Sequence[Row],
    importances: Sequence[Importance],
    left_out: Sequence[Difference],
) -> list[str]:
    if plan.changes:
        names = {r: [d.name for d in left_out if d.reading == r] for r in READINGS}
        return [f"{READINGS[r]}: {', '.join(each)}." for r, each in names.items() if each]
    done = [(row.mean, row.spread or 0.0) for row in rows if row.mean is not None]
    if not done:
        return ["No point is complete yet."]
    best, (mean, spread) = rows[0], done[0]
    lines = [f"Best of {len(done):,}: {plan.by} {best.text} with {shown(best.parameters)}."]
    close = sum(abs(mean - other) <= spread + more for other, more in done[1:])
    if close and plan.seeds > 1:
        count = "One other point is" if close == 1 else f"{close:,} other points are"
        lines.append(f"{count} no further from it than the spread over seeds.")
    if len(importances) > 1 and importances[0].mean - importances[0].spread > importances[1].mean:
        lines.append(f"The field that matters most is {importances[0].field}.")
    return lines


def _images(
    plan: Plan, base: vgx.Recipe, rows: Sequence[Row], machine: Machine
) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the newest grid of each trial's first run on this machine; and the images' sums.

    The names of runs in a storage may be a stranger's, so a run is found by the trial's recipe.
    """
    found: list[dict[str, Any]] = []
    contents: set[str] = set()
    ended = [i for i, row in enumerate(rows) if row.state in ("complete", "pruned")]
    for i in ended:
        if len(found) == SHOWN:
            break
        first = plan.recipes(base, rows[i].parameters, machine.registry)[0]
        if (run := next(iter(runs_of(first, machine)), None)) is None:
            continue
        made = reading.unless_damaged(reading.environment, run.path) or {}
        contents |= {made.get("data", {}).get("content", "")} - {""}
        if grids := drawn(run):
            step = step_of(grids[-1])
            read = embedding(pixels_of(first.model_dump(mode="json")))
            image = read(grids_of(run.samples, step)["samples"])
            if image is not None:
                found.append({"point": i, "step": step, "image": image, "run": run.path.name})
    return found, contents
