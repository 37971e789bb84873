"""Each run as one line of a list.

Looking at a run is quick and runs none of its code: nothing here imports torch or a plugin.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from vgx.recipe.renamed import RENAMED, rename_keys
from vgx.runs import reading
from vgx.runs.best import best_of
from vgx.runs.directory import Run

PLACES = (("train", "steps"), ("train", "epochs"), ("eval", "best"))
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?")


@dataclass(frozen=True)
class Summary:
    """One run as a list shows it."""

    name: str
    state: str  # running, done, stopped, diverged, failed, killed, or broken: why
    step: int
    of: int | None  # steps of the whole training, if known
    since: float  # seconds since 1970: when it was begun
    bytes: int  # on the disk
    best: str  # a metric and its value, if one was measured
    note: str = ""
    parent: reading.Parent | None = None
    started: str = ""  # the time, as in environment.json


def summarize(run: Run) -> Summary:
    """Return what a run's files say; for a damaged run also what is wrong with it."""
    name, since, size = run.path.name, 0.0, 0
    try:
        since, size = _since(run), _size(str(run.path))
        plan, ended = _plan(run), reading.ended(run.path)
        last = reading.last_line(run.path) or {"step": 0}
        step = max(last["step"], ended["step"] if ended else 0)
        state = "running" if run.holder() else ended["how"] if ended else "killed"
        steps = (ended["of"] if ended else None) or _steps(plan, last)
        made, note = reading.environment(run.path) or {}, reading.note(run.path)
        origin = made.get("parent"), made.get("started", "")
        return Summary(name, state, step, steps, since, size, _best(run, plan), note, *origin)
    # Whatever is wrong with one run, the others are listed.
    except Exception as error:  # noqa: BLE001
        first = (str(error).splitlines() or [type(error).__name__])[0]
        why = first.replace(f"{run.path}{os.sep}", "").removeprefix(f"{run.path}: ")
        return Summary(name, f"broken: {why}", 0, None, since, size, "")


def tree(runs: Sequence[Summary]) -> list[tuple[str, Summary]]:
    """Return the runs with each below the run that it comes from, and lines that show this.

    Children stand in the order of their names, all others as they are given.
    """
    named = {run.name: run for run in runs}
    below: dict[str, list[Summary]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        above = named.get(run.parent["run"]) if run.parent else None
        # A run that was made later has the name of a parent that was removed.
        if above is not None and above.started <= run.started:
            below.setdefault(above.name, []).append(run)
    children = {run.name for group in below.values() for run in group}
    rows: list[tuple[str, Summary]] = []
    ahead = [(run, "", "") for run in reversed(runs) if run.name not in children]
    while ahead:
        run, line, beside = ahead.pop()
        rows.append((line, run))
        group = below.pop(run.name, [])  # each once, whatever the files of a stranger claim
        for child in reversed(group):
            corner, bar = ("└─ ", "   ") if child is group[-1] else ("├─ ", "│  ")
            ahead.append((child, beside + corner, beside + bar))
    seen = {run.name for _, run in rows}
    rows += [("", run) for run in runs if run.name not in seen]  # of a circle
    return rows


def age(seconds: float) -> str:
    """Return a time span in its largest unit, as in `3 d` or `5 min`."""
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


@dataclass(frozen=True)
class _Plan:
    """What a list needs of a recipe."""

    steps: int | None
    epochs: float | None
    best: str  # a metric, or ""


def _plan(run: Run) -> _Plan:
    """Return what a recipe plans.

    Of a recipe that vgx has written three lines are read: all of its YAML takes a thousand times as
    long, and a list has hundreds of runs.
    """
    text = reading.recipe_text(run.path)
    steps, epochs, best = (_written(text, *place) for place in PLACES)
    if None in (steps, epochs, best) or best in RENAMED:
        recipe = reading.recipe(run.path)
        steps, epochs = (str(recipe["train"].get(name)) for name in ("steps", "epochs"))
        evaluated = recipe.get("eval")
        best = str(evaluated.get("best")) if isinstance(evaluated, dict) else "null"
    whole, part = (float(t) if t and _NUMBER.fullmatch(t) else None for t in (steps, epochs))
    named = best if best not in ("null", "None", None) else ""
    return _Plan(int(whole) if whole else None, part, named)


def _written(text: str, section: str, name: str) -> str | None:
    """Return a plain value of a recipe in the way in which vgx writes it; None if it is not so."""
    block = re.search(rf"^{section}:\n((?:[ -].*\n?)*)", text, re.MULTILINE)
    value = block and re.search(rf"^  {name}: ([\w.-]+)$", block[1], re.MULTILINE)
    return value[1] if value else None


def _steps(plan: _Plan, last: reading.Line) -> int | None:
    """Return how many steps a run takes that has not ended: from its epochs, if it has begun."""
    if plan.steps or not plan.epochs:
        return plan.steps
    # An epoch of a damaged log may be so small that the division gives infinity.
    steps = plan.epochs * last["step"] / max(last.get("epoch", 0.0), 1e-9)
    return math.ceil(steps - 1e-3) if last.get("epoch") else None


def _best(run: Run, plan: _Plan) -> str:
    """Return the best value of `eval.best`, or the first figure of the last evaluation.

    Whether higher or lower is better stands in environment.json. Runs of earlier versions
    have no such note: of them the last value is returned.
    """
    name = plan.best
    lines = reading.measured(run.path, name) if name else []
    if lines:
        better = (reading.environment(run.path) or {}).get("better") or {}
        better = rename_keys(better, RENAMED) | better  # of a run before the names changed
        best = best_of(lines, name, better[name]) if name in better else None
        if best is None:
            last = lines[-1]
            return f"{name} {last['metrics'][name]:.4g} at step {last['step']:,} (the last)"
        return f"{name} {best.value:.4g} at step {best.step:,}"
    results = reading.evaluation(run.path) or {}
    for part in (*results.get("generation", []), results.get("reconstruction")):
        for named, figure in (part["figures"] if part else {}).items():
            return f"{named} {figure['mean']:.4g}"
    return ""


def _since(run: Run) -> float:
    for file in (run.path / "environment.json", run.path):
        with suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _size(folder: str) -> int:
    """Return the bytes of all files in a folder; links are not followed."""
    total, folders = 0, [folder]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as inside:  # removed just now
            for entry in inside:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
