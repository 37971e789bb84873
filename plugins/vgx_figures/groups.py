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
    """Runs that differ in their seed alone, and the texts that name them in a figure."""

    name: str  # that of one of its runs begins with it
    label: str  # of all of them
    runs: tuple[Run, ...]


def grouped(runs: Sequence[Run], labels: Sequence[str] = ()) -> list[Group]:
    """Return runs in groups of one recipe and the same images, in the order of their first run.

    A fork is a group by itself, and so is a run whose seed another one of its recipe has too: they
    are no further seeds, since they depend on another run or repeat it. Without `labels` a group
    is named by its recipe; if two groups have this name, by their runs too. Raises `StorageError`
    for a run without a recipe, and `RecipeError` for another number of labels than groups.
    """
    if not 0 < len(runs) <= MOST:
        raise vgx.RecipeError(f"{len(runs)} runs: a figure shows from 1 to {MOST}")
    members: dict[str, list[Run]] = {}
    names: dict[str, str] = {}
    others = list({run.path.resolve(): run for run in runs}.values())
    recipes = [reading.recipe(run.path) for run in others]
    identities = list(map(_identity, others, recipes))
    for run, recipe, identity in zip(others, recipes, identities, strict=True):
        key = identity[0] if identities.count(identity) == 1 else f"{identity} {run.path.resolve()}"
        members.setdefault(key, []).append(run)
        names.setdefault(key, short(visible(str(recipe.get("name", run.path.name)))))
    if labels and len(labels) != len(members):
        raise vgx.RecipeError(
            f"labels: {len(labels)} for {len(members)} groups of runs; runs of one recipe with "
            "other seeds are one group"
        )
    given = [short(text) for text in labels]
    chosen = given or [_name(names, key, members[key]) for key in members]
    return [
        Group(text, text if given or len(of) == 1 else f"{text}, {len(of)} seeds", tuple(of))
        for text, of in zip(chosen, members.values(), strict=True)
    ]


def _identity(run: Run, recipe: dict[str, Any]) -> tuple[str, str]:
    """Return what the runs of a group have in common, and the seed.

    In common are the recipe but for its seed, and the images; a fork has nothing in common.
    """
    environment = unless_damaged(reading.environment, run.path) or {}
    forked = environment.get("parent", {}).get("how") == "fork"
    train = {name: value for name, value in recipe["train"].items() if name != "seed"}
    fields = {**recipe, "name": None, "train": train}
    images = environment.get("data", {}).get("content")
    common = [fields, images, str(run.path.resolve()) if forked else None]
    return json.dumps(common, sort_keys=True), json.dumps(recipe["train"].get("seed"))


def _name(names: dict[str, str], key: str, runs: Sequence[Run]) -> str:
    several = Counter(names.values())[names[key]] > 1
    numbers = ", ".join(run.path.resolve().name.partition("-")[0].lstrip("0") for run in runs)
    return f"{names[key]} ({numbers})" if several else names[key]


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
            several = len(group.runs) > 1
            named.append((f"{group.name}, seed {seed}" if several else group.name, run))
    return named
