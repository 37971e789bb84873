"""The page of a study: one HTML file that needs nothing else, drawn like that of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import vgx
from vgx.errors import noticing
from vgx.files import write_file
from vgx.runs import reading
from vgx.runs.directory import Run, runs_dir
from vgx.runs.frames import drawn, step_of
from vgx.runs.frames import files as grids_of
from vgx_report.compare import pixels_of
from vgx_report.html import LIBRARY, filled
from vgx_report.panels import embedding
from vgx_report.run_data import OFFLINE
from vgx_sweep.ablation import HEADER, Difference, pairing, table
from vgx_sweep.plan import Plan
from vgx_sweep.results import Importance, Row, cell
from vgx_sweep.space import Range
from vgx_sweep.storage import Study
from vgx_sweep.training import coarse

SHOWN = 24  # trials with images, the best first
_RUN = re.compile(r"[\w.-]{1,200}")


def write(
    study: Study,
    rows: Sequence[Row],
    importances: Sequence[Importance],
    left_out: Sequence[Difference],
    best: vgx.Recipe | None,
    out: Path | None,
    registry: vgx.Registry,
    path: Path,
) -> None:
    """Write the page of a study."""
    folder = files("vgx_report").joinpath("page")
    text, style, *library = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *LIBRARY)
    )
    own = files("vgx_sweep").joinpath("page", "sweep.js").read_text(encoding="utf-8")
    data = gather(study, rows, importances, left_out, best, out, registry)
    write_file(
        path,
        filled(
            text, data, title=f"{data['name']} - vgx", style=style, code="".join([*library, own]),
            own="'none'", images="data:",
        ),
    )  # fmt: skip


def gather(
    study: Study,
    rows: Sequence[Row],
    importances: Sequence[Importance],
    left_out: Sequence[Difference],
    best: vgx.Recipe | None,
    out: Path | None,
    registry: vgx.Registry,
) -> dict[str, Any]:
    """Return all that the page contains, as plain data."""
    plan, notices = study.plan, list[str]()
    with noticing(notices):
        images, contents = _images(plan, rows, out, registry)
    if len(contents) > 1:
        notices.append("The runs of this study were not trained on the same images.")
    states = [row.state for row in rows]
    done = states.count("complete")
    counted = [f"{states.count(s):,} {s}" for s in dict.fromkeys(states) if s != "complete"]
    name = {"grid": "all points of a grid", "tpe": "TPE", "random": "random search"}[plan.search]
    title = "Ablation" if plan.changes else "Sweep"
    return {
        "kicker": f"{title} of {best.name}" if best else title,
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
            {
                "field": axis.field,
                "text": axis.text,
                "log": isinstance(axis, Range) and axis.log,
                "choices": None if isinstance(axis, Range) else [str(c) for c in axis.choices],
                "ends": [axis.low, axis.high] if isinstance(axis, Range) else None,
            }
            for axis in plan.over
        ],
        "points": [_point(plan, row) for row in rows],
        "importances": [asdict(each) for each in importances],
        "ablation": {"header": HEADER, "rows": table(left_out), "note": pairing(left_out)}
        if left_out else None,
        "differences": [asdict(each) for each in left_out],
        "images": images,
        "recipe": vgx.dump_recipe(best) if best and not plan.changes else "",
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
        "cells": [cell(row.parameters[a.field]) if row.parameters else "-" for a in plan.over],
        "mean": row.mean,
        "spread": row.spread,
        "text": row.text,
        "figures": [*row.figures.values()] if row.mean is not None else [],
        "runs": [*row.runs.values()],
        "reason": row.reason,
    }


def _summary(
    plan: Plan,
    rows: Sequence[Row],
    importances: Sequence[Importance],
    left_out: Sequence[Difference],
) -> list[str]:
    done = [row for row in rows if row.mean is not None]
    if plan.changes:
        worse = [d.name for d in left_out if d.reading == "worse without it"]
        same = [d.name for d in left_out if d.reading == "no difference seen"]
        texts = [("Worse without", worse), ("No difference is seen without", same)]
        return [f"{title}: {', '.join(names)}." for title, names in texts if names]
    if not done:
        return ["No point is complete yet."]
    values = ", ".join(f"{name} {cell(value)}" for name, value in done[0].parameters.items())
    lines = [f"Best of {len(done):,}: {plan.by} {done[0].text} with {values}."]
    close = [row for row in done[1:] if _as_good(done[0], row)]
    if close:
        count = "One other point is" if len(close) == 1 else f"{len(close):,} other points are"
        lines.append(f"{count} no further from it than the spread over seeds.")
    if importances and importances[0].mean - importances[0].spread > importances[1].mean:
        lines.append(f"The field that matters most is {importances[0].field}.")
    return lines


def _as_good(best: Row, row: Row) -> bool:
    spreads = [each for each in (best.spread, row.spread) if each is not None]
    assert best.mean is not None
    assert row.mean is not None
    return bool(spreads) and abs(best.mean - row.mean) <= sum(spreads)


def _images(
    plan: Plan, rows: Sequence[Row], out: Path | None, registry: vgx.Registry
) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the newest grid of each trial's first run on this machine; and the images' sums.

    The names of runs are what the storage says, so a run counts only if its recipe is the trial's.
    """
    found: list[dict[str, Any]] = []
    contents: set[str] = set()
    base = plan.base(registry)
    for row in rows:
        if len(found) == SHOWN:
            break
        if not row.runs or not row.parameters or row.state not in ("complete", "pruned"):
            continue
        name = next(iter(row.runs.values()))
        run = Run(runs_dir(out) / name)
        if not _RUN.fullmatch(name) or run.path.is_symlink() or not run.recipe_file.is_file():
            continue
        first = plan.recipes(base, row.parameters, registry)[0]
        text = reading.unless_damaged(reading.recipe_text, run.path)
        if text is None or coarse(text) != coarse(vgx.dump_recipe(first)):
            continue
        made = reading.unless_damaged(reading.environment, run.path) or {}
        contents.add(made.get("data", {}).get("content", ""))
        if grids := drawn(run):
            step = step_of(grids[-1])
            read = embedding(pixels_of(first.model_dump(mode="json")))
            image = read(grids_of(run.samples, step)["samples"])
            if image is not None:
                found.append({"point": rows.index(row), "step": step, "image": image, "run": name})
    return found, contents
