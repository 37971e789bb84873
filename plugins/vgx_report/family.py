"""The runs that a run comes from, and those that come from it, as a tree.

Names of parents are what the files of the runs in one folder say. A stranger's files may say
anything, so no name leads out of the folder, and a circle ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgx.errors import VgxError
from vgx.runs import reading
from vgx.runs.directory import Run, every
from vgx.runs.summary import summarize, tree

MOST = 200  # runs in a tree


def origin(parent: reading.Parent | None) -> str:
    """Return where a run comes from, as the end of a sentence; an empty text if from nowhere."""
    if parent is None:
        return ""
    place = f"{parent['run']} at step {parent['step']:,}"
    if parent["how"] == "fork":
        return f"a fork of {place}"
    networks = " and ".join(parent.get("networks", []))
    return f"begun with weights of {place}" + (f": {networks}" if networks else "")


def family(run: Run) -> list[dict[str, Any]]:
    """Return the tree that a run is in, a row for each run; empty for a run without relatives."""
    own = run.path.resolve()
    runs = {each.path.name: each for each in every(own.parent)}
    parents = {name: parent for name, each in runs.items() if (parent := _parent(each))}
    related = _related(own.name, parents, runs)
    if len(related) < 2 and own.name not in parents:
        return []
    summaries = [summarize(runs[name]) for name in sorted(related)[:MOST]]
    # When its training has just ended, a run is still locked.
    ended = reading.unless_damaged(reading.ended, run.path)
    return [
        {
            "line": line,
            "run": each.name,
            "own": each.name == own.name,
            "state": ended["how"] if ended and each.name == own.name else each.state,
            "steps": f"{each.step:,}",
            "origin": origin(each.parent),
        }
        for line, each in tree(summaries)
    ]


def _parent(run: Run) -> reading.Parent | None:
    try:
        return (reading.environment(run.path) or {}).get("parent")
    except VgxError:
        return None


def _related(name: str, parents: Mapping[str, reading.Parent], runs: Mapping[str, Run]) -> set[str]:
    """Return the names of a run, of the runs above it, and of all that are below one of these."""
    related = {name} & runs.keys()
    while name in parents and parents[name]["run"] in runs.keys() - related:
        name = parents[name]["run"]
        related.add(name)
    while (
        more := {child for child, parent in parents.items() if parent["run"] in related} - related
    ):
        related |= more
    return related
