"""The runs there are, each as one line; nothing here imports torch, for looking must be quick."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgx.errors import VgxError
from vgx.parts.registry import discover
from vgx.recipe.load import load_recipe
from vgx.recipe.yaml import read
from vgx.runs.directory import Run

# What JSON that is none, or is none of ours, makes of reading it.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
TAIL = 2**16  # bytes of a log that its last line is looked for in


@dataclass(frozen=True)
class Entry:
    """One run as a list shows it."""

    name: str
    state: str  # running, done, stopped, diverged, failed, killed, or broken: why
    step: int
    of: int | None  # steps asked for, when that is known
    since: float  # seconds since 1970: when it was begun
    bytes: int  # on the disk
    best: str  # a metric and its value, when it was judged


def entry(run: Run) -> Entry:
    """Return what a run's files say; of a damaged one also what is wrong with it."""
    began, size = _began(run), _size(run.path)
    try:
        recipe, ended = recipe_of(run), _ended(run)
        last = _last(run)
        step = max(last.get("step", 0), ended.get("step", 0))
        state = "running" if run.holder() else ended.get("how", "killed")
        of = ended.get("of") or _of(recipe["train"], last)
        return Entry(run.path.name, state, step, of, began, size, _best(run, recipe))
    except (OSError, VgxError, *UNREADABLE) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        why = (error.strerror if isinstance(error, OSError) else None) or first
        return Entry(run.path.name, f"broken: {why}", 0, None, began, size, "")


def age(seconds: float) -> str:
    """Return a time as one says it."""
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def gist(run: Run, name: str) -> dict[str, Any]:
    """Return one of the run's JSON files; nothing when there is none that can be read."""
    try:
        loaded = json.loads((run.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def recipe_of(run: Run) -> dict[str, Any]:
    """Return a run's recipe as plain data.

    Raises `ValueError` or `TypeError` when it is none.
    """
    if not run.recipe_file.is_file():
        raise ValueError("no recipe.yaml; it was ended before it began")
    tree, faults = read(run.recipe_file.read_text(encoding="utf-8"), "recipe.yaml")
    if faults:
        raise ValueError(f"{faults[0].place}: {faults[0].message}")
    recipe = tree.plain()
    if not (isinstance(recipe, dict) and isinstance(recipe.get("train"), dict)):
        raise TypeError("recipe.yaml: no recipe")
    return recipe


def _ended(run: Run) -> dict[str, Any]:
    """Return how it ended; nothing when it did not."""
    file = run.path / "ended.json"
    if not file.is_file():
        return {}
    ended = json.loads(file.read_text(encoding="utf-8"))
    if not (isinstance(ended, dict) and {"how", "step", "of"} <= ended.keys()):
        raise ValueError("ended.json: says no end")
    return {"how": str(ended["how"]), "step": int(ended["step"]), "of": int(ended["of"])}


def _last(run: Run) -> dict[str, Any]:
    """Return the last whole line of the log; nothing when it has none."""
    if not run.log_file.is_file():
        return {}
    with run.log_file.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # torn, or the end of a line that is longer than was read
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return line
    if lines:
        raise ValueError("log.jsonl: no line can be read")
    return {}


def _of(train: dict[str, Any], last: dict[str, Any]) -> int | None:
    """Return how many steps a run takes that has not ended: from epochs, once it has begun one."""
    if train.get("steps"):
        return int(train["steps"])
    if train.get("epochs") and last.get("epoch"):
        return math.ceil(int(train["epochs"]) * int(last["step"]) / float(last["epoch"]) - 1e-3)
    return None


def _best(run: Run, recipe: dict[str, Any]) -> str:
    """Return the recipe's best measurement, else the first figure of the last evaluation."""
    name = str((recipe.get("eval") or {}).get("best") or "")
    values = {
        line["step"]: line["metrics"][name]
        for line in (run.read_log() if name else ())
        if name in line.get("metrics", {})
    }
    if values:
        loaded = load_recipe(run.recipe_file, (), discover(run.plugin_files))
        choose = max if loaded.eval.better[name] == "higher" else min
        step = choose(values, key=values.__getitem__)
        return f"{name} {values[step]:.4g} at step {step:,}"
    file = run.path / "evaluation.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for part in (*said.get("generation", []), said.get("reconstruction") or {}):
        for named, figure in part.get("figures", {}).items():
            return f"{named} {figure['mean']:.4g}"
    return ""


def _began(run: Run) -> float:
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
            except OSError:  # pruned just now
                continue
    return total
