"""Runs as lines of a figure: runs of one recipe that differ in their seed are one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vgx
from vgx.output import short, visible
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.reading import unless_damaged

MOST = 100  # runs in one figure


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, and the text that names them in a figure."""

    label: str
    runs: tuple[Run, ...]


def grouped(runs: Sequence[Run], labels: Sequence[str] = ()) -> list[Group]:
    """Return runs in groups of one recipe and the same images, in the order of their first run.

    Without `labels` a group is named by its recipe; if two groups have this name, by their runs
    too. Raises `StorageError` for a run without a recipe, and `RecipeError` for another number of
    labels than groups.
    """
    if not 0 < len(runs) <= MOST:
        raise vgx.RecipeError(f"{len(runs)} runs: a figure shows from 1 to {MOST}")
    members: dict[str, list[Run]] = {}
    names: dict[str, str] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        recipe = reading.recipe(run.path)
        key = _identity(run, recipe)
        members.setdefault(key, []).append(run)
        names.setdefault(key, short(visible(str(recipe.get("name", run.path.name)))))
    if labels and len(labels) != len(members):
        raise vgx.RecipeError(
            f"labels: {len(labels)} for {len(members)} groups of runs; runs of one recipe with "
            "other seeds are one group"
        )
    chosen = [short(text) for text in labels] or [
        _label(names, key, members[key]) for key in members
    ]
    return [Group(text, tuple(group)) for text, group in zip(chosen, members.values(), strict=True)]


def _identity(run: Run, recipe: dict[str, Any]) -> str:
    """Return what the runs of a group have in common: the recipe but for its seed, the images."""
    environment = unless_damaged(reading.environment, run.path) or {}
    train = {name: value for name, value in recipe["train"].items() if name != "seed"}
    fields = {**recipe, "name": None, "train": train}
    return json.dumps([fields, environment.get("data", {}).get("content")], sort_keys=True)


def _label(names: dict[str, str], key: str, runs: Sequence[Run]) -> str:
    several = Counter(names.values())[names[key]] > 1
    numbers = ", ".join(run.path.resolve().name.partition("-")[0].lstrip("0") for run in runs)
    name = f"{names[key]} ({numbers})" if several else names[key]
    return f"{name}, {len(runs)} seeds" if len(runs) > 1 else name


def named(groups: Sequence[Group]) -> str:
    """Return which runs are in each group, for a caption."""
    texts = (
        f"{group.label} ({', '.join(run.path.resolve().name for run in group.runs)})"
        for group in groups
    )
    return "; ".join(texts)


def names_of_runs(groups: Sequence[Group]) -> list[tuple[str, Run]]:
    """Return each run with a name of its own: that of its group, or its seed too."""
    named: list[tuple[str, Run]] = []
    for group in groups:
        for run in group.runs:
            seed = reading.recipe(run.path)["train"].get("seed")
            name = group.label.partition(", ")[0] if len(group.runs) > 1 else group.label
            named.append((f"{name}, seed {seed}" if len(group.runs) > 1 else name, run))
    return named
