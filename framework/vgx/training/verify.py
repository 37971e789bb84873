"""Whether a run repeats: its last steps are done again and compared."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from vgx.console import Console
from vgx.errors import StorageError, noticing
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, reading
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, find
from vgx.runs.trust import registry_of
from vgx.training.session import rebuild


def verify(
    run: Run | str | Path | int | None = None,
    device: str | None = None,
    console: Console | None = None,
    recipe: Recipe | None = None,
) -> tuple[int, int]:
    """Do the steps between a run's two newest checkpoints again; return the first and the last.

    All images are hashed first. `recipe` is the run's own, but for the place of its images. Writes
    nothing into the run. Raises `StorageError` when there are not two checkpoints, or when a result
    differs: it names the first step and loss, or else the first tensor.
    """
    console, run = console or Console(), find(run)
    recipe = recipe or load_recipe(run.recipe_file, (), registry_of(run))
    with run.held():
        notices: list[str] = []
        with noticing(notices):
            _, newest = checkpoint.load(run)
            _, before = checkpoint.load(run, before=newest.numbers["step"])
        for notice in notices:
            console.warn(notice)
        # The notices about the data and the parts were printed when the run was started.
        training = rebuild(run, recipe, before, device, Console(file=io.StringIO()), console)
        first, last = training.done + 1, newest.numbers["step"]
        lines = (entry.line for entry in reading.entries(run.path))
        logged = {
            line["step"]: line.get("losses", {})
            for line in lines
            if line and first <= line["step"] <= last
        }
        with console.progress(
            "Repeating", last - first + 1, 0, "steps", recipe.images_per_step
        ) as advance:
            while training.done < last:
                terms = training.step()
                if what := difference(training.done, terms, logged.get(training.done, {})):
                    raise _differs(run, what)
                advance(1, ())
    training.refresh_average()
    _compare_states(run, training.engine.state({}), newest)
    console.print(f"Run {run.path}: steps {first:,} to {last:,} repeat bit for bit")
    return first, last


def difference(step: int, terms: dict[str, Tensor], logged: dict[str, float]) -> str:
    """Return how the terms of a step differ from its line of the log; empty if they do not."""
    for name, before in logged.items():
        now = terms[name].item() if name in terms else None
        if now != before:
            return f"step {step:,}: {name} was {before!r} and is {now!r} now"
    return ""


def _compare_states(run: Run, state: State, newest: State) -> None:
    for part in ("model", "optimizer", "latents"):
        ours, theirs = getattr(state, part), getattr(newest, part)
        # An earlier vgx stored no labels and no KL beside its latents.
        for name in sorted(theirs if part == "latents" else ours | theirs):
            # As bytes of a file: the layout in memory and the device make no difference.
            one, two = ({"": group[name]} if name in group else {} for group in (ours, theirs))
            if checkpoint.tensor_bytes(one) != checkpoint.tensor_bytes(two):
                step = newest.numbers["step"]
                raise _differs(run, f"{name} is not what the checkpoint of step {step:,} holds")


def _differs(run: Run, what: str) -> StorageError:
    why = (
        "another machine, device, version or number of threads may be the reason, or a learning "
        "rate that was changed at a resume (see the warnings of the log)"
    )
    return StorageError(f"{run.path}: does not repeat: {what}; {why}")
