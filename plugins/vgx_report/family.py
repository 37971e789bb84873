"""The runs that a run comes from, and those that come from it, as a tree.

Names of parents are what the files of the runs in one folder say. A stranger's files may say
anything, so no name leads out of the folder, and a circle ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vgx.errors import VgxError
from vgx.runs import reading
from vgx.runs.directory import Run, every
from vgx.runs.summary import summarize, tree

MOST = 200  # runs in a tree: the newest, and the run itself


def origin(parent: reading.Parent | None) -> str:
    """Return where a run comes from, as the end of a sentence; an empty text if from nowhere."""
    if parent is None:
        return ""
    place = f"{parent['run']} at step {parent['step']:,}"
    if parent["how"] == "fork":
        return f"a fork of {place}"
    networks = " and ".join(parent.get("networks", []))
    return f"begun with weights of {place}" + (f": {networks}" if networks else "")


@dataclass(frozen=True)
class Branch:
    """What the parent of a fork did from the fork on."""

    run: str  # the name of the parent
    step: int  # of the fork
    lines: list[reading.Line]  # of the parent's log, from the last one that both have


def branch(run: Run, environment: reading.Environment, last: int) -> Branch | None:
    """Return what the parent of a fork did after it, up to step `last`; None for no fork.

    There are no lines when the parent is not in the same folder any more.
    """
    parent = environment.get("parent")
    if parent is None or parent["how"] != "fork":
        return None
    own, at = run.path.resolve(), parent["step"]
    lines: list[reading.Line] = []
    for each in every(own.parent):
        if each.path.name == parent["run"] != own.name and _elder(each, environment):
            lines = reading.unless_damaged(lambda path: Run(path).read_log(), each.path) or []
    shared = max((i for i, line in enumerate(lines) if line["step"] <= at), default=0)
    return Branch(parent["run"], at, [line for line in lines[shared:] if line["step"] <= last])


def _elder(run: Run, younger: reading.Environment) -> bool:
    """Return whether a run was begun before another one: a name may have been given anew."""
    made = reading.unless_damaged(reading.environment, run.path) or {}
    return made.get("started", "") <= younger.get("started", "")


def family(run: Run) -> list[dict[str, Any]]:
    """Return the tree that a run is in, a row for each run; empty for a run without relatives."""
    own = run.path.resolve()
    runs = {each.path.name: each for each in every(own.parent)}
    parents = {name: parent for name, each in runs.items() if (parent := _parent(each))}
    related = _related(own.name, parents, runs)
    if len(related) < 2 and own.name not in parents:
        return []
    newest = sorted(related, key=lambda name: (name == own.name, name))[-MOST:]
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
        for line, each in tree([summarize(runs[name]) for name in newest])
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
