"""The small files of a run, and each run as one line of a list.

Looking at a run is quick and runs none of its code: nothing here imports torch or a plugin.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from vgx.errors import VgxError
from vgx.recipe.renamed import RENAMED, rename_evaluation, rename_keys, rename_recipe
from vgx.recipe.yaml import read
from vgx.runs.best import best_of
from vgx.runs.directory import Run

# Errors of reading JSON that is damaged or was not written by a run.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
TAIL = 2**16  # bytes at the end of a log in which its last line is looked for


class Ended(TypedDict):
    """How a training ended: the part of `ended.json` that a list needs."""

    how: str  # done, stopped, diverged or failed
    step: int
    of: int  # steps of the whole training


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


def summarize(run: Run) -> Summary:
    """Return what a run's files say; for a damaged run also what is wrong with it."""
    name, since, size = run.path.name, _since(run), _size(run.path)
    try:
        recipe, ended = read_recipe(run), _ended(run)
        last = _last_line(run)
        step = max(last.get("step", 0), ended["step"] if ended else 0)
        state = ended["how"] if ended else "killed"
        steps = (ended["of"] if ended else None) or _steps(recipe["train"], last)
        state = "running" if run.holder() else state
        return Summary(name, state, step, steps, since, size, _best(run, recipe))
    except (OSError, VgxError, *UNREADABLE) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        why = (error.strerror if isinstance(error, OSError) else None) or first
        return Summary(name, f"broken: {why}", 0, None, since, size, "")


def age(seconds: float) -> str:
    """Return a time span in its largest unit, as in `3 d` or `5 min`."""
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def read_json(run: Run, name: str) -> dict[str, Any]:
    """Return one of the run's JSON files; an empty dictionary if it is missing or damaged."""
    try:
        loaded = json.loads((run.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def read_recipe(run: Run) -> dict[str, Any]:
    """Return a run's recipe as plain data.

    Raises `ValueError` or `TypeError` for a file that is no recipe.
    """
    if not run.recipe_file.is_file():
        raise ValueError("no recipe.yaml; it was ended before it began")
    tree, faults = read(run.recipe_file.read_text(encoding="utf-8"), "recipe.yaml")
    if faults:
        raise ValueError(f"{faults[0].place}: {faults[0].message}")
    recipe = tree.plain()
    if not (isinstance(recipe, dict) and isinstance(recipe.get("train"), dict)):
        raise TypeError("recipe.yaml: no recipe")
    return rename_recipe(recipe)


def read_evaluation(run: Run) -> dict[str, Any]:
    """Return the run's `evaluation.json`; an empty dictionary if it is missing or damaged."""
    results = read_json(run, "evaluation.json")
    try:
        return rename_evaluation(results)
    except UNREADABLE:  # not as `vgx eval` writes it, which is an error where tables are made of it
        return results


def _ended(run: Run) -> Ended | None:
    """Return how the training ended; None if it did not."""
    file = run.path / "ended.json"
    if not file.is_file():
        return None
    ended = json.loads(file.read_text(encoding="utf-8"))
    if not (isinstance(ended, dict) and {"how", "step", "of"} <= ended.keys()):
        raise ValueError("ended.json: does not say how the run ended")
    return {"how": str(ended["how"]), "step": int(ended["step"]), "of": int(ended["of"])}


def _last_line(run: Run) -> dict[str, Any]:
    """Return the last whole line of the log; an empty dictionary if it has none."""
    if not run.log_file.is_file():
        return {}
    with run.log_file.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # torn, or the end of a line that is longer than what was read
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return line
    if lines:
        raise ValueError("log.jsonl: no line can be read")
    return {}


def _steps(train: dict[str, Any], last: dict[str, Any]) -> int | None:
    """Return how many steps a run takes that has not ended: from its epochs, if it has begun."""
    if train.get("steps"):
        return int(train["steps"])
    if train.get("epochs") and last.get("epoch"):
        return math.ceil(int(train["epochs"]) * int(last["step"]) / float(last["epoch"]) - 1e-3)
    return None


def _best(run: Run, recipe: dict[str, Any]) -> str:
    """Return the best value of `eval.best`, or the first figure of the last evaluation.

    Whether higher or lower is better stands in environment.json. Runs of earlier versions
    have no such note: of them the last value is returned.
    """
    name = str((recipe.get("eval") or {}).get("best") or "")
    measured = [line for line in run.read_log() if name in line.get("metrics", {})] if name else []
    if measured:
        better = read_json(run, "environment.json").get("better") or {}
        better = rename_keys(better, RENAMED) | better  # of a run before the names changed
        best = best_of(measured, name, better[name]) if name in better else None
        if best is None:
            last = measured[-1]
            return f"{name} {last['metrics'][name]:.4g} at step {last['step']:,} (the last)"
        return f"{name} {best.value:.4g} at step {best.step:,}"
    file = run.path / "evaluation.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    results = rename_evaluation(results)
    for part in (*results.get("generation", []), results.get("reconstruction") or {}):
        for named, figure in part.get("figures", {}).items():
            return f"{named} {figure['mean']:.4g}"
    return ""


def _since(run: Run) -> float:
    for file in (run.path / "environment.json", run.path):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(folder, name).lstat().st_size
            except OSError:  # removed just now
                continue
    return total
