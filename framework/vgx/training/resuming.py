"""Whether a stopped run may go on with a recipe, and what is noted of it."""

from __future__ import annotations

import dataclasses

from vgx.console import Console
from vgx.errors import RecipeError, StorageError, noticing
from vgx.recipe.load import differences
from vgx.recipe.model import CHANGEABLE, Recipe
from vgx.runs import checkpoint, frames, reading
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run
from vgx.runs.exported import is_exported
from vgx.second import fitting
from vgx.training.state import Training

NO_OPTIMIZER = "begin a new run from its weights (start.run): it has no state of an optimizer"


def changes(run: Run, stored: Recipe, recipe: Recipe) -> bool:
    """Return whether a recipe differs from the stored one.

    Raises `RecipeError` when a field differs that may not change in a resumed run.
    """
    changed = differences(stored, recipe)
    wrong = [
        f"{name}: {old!r} -> {new!r}"
        for name, (old, new) in changed.items()
        if not any(name == field or name.startswith(f"{field}.") for field in CHANGEABLE)
    ]
    if wrong:
        message = f"{run.path} was made by another recipe; start a new run for that:"
        raise RecipeError("\n  ".join([message, *wrong[:6]]))
    return bool(changed)


def note_rates(training: Training, stored: Recipe, state: State | None, console: Console) -> None:
    """Note in the log which learning rates are others from the next step on.

    The newest checkpoint gets the note too: a log loses its lines after it when a run is resumed.
    """
    old, new = (
        recipe.model_dump(mode="json")["train"]["optimizers"]
        for recipe in (stored, training.recipe)
    )
    notes = [
        f"train.optimizers.{player}.lr: {old[player]['lr']} until step {training.done:,}, then "
        f"{new[player]['lr']}"
        for player in old
        if old[player]["lr"] != new[player]["lr"]
    ]
    if not notes or state is None:
        return
    for note in notes:
        console.warn(note)
    training.warnings += notes
    numbers = {**state.numbers, "warnings": training.warnings}
    best = training.measured.get(training.recipe.eval.best or "")
    state = dataclasses.replace(state, numbers=numbers)
    checkpoint.save(training.run, state, training.recipe.train.keep, best and best.best.step)


def nothing_left(training: Training) -> str:
    """Return a message about a run that is done; an empty text when steps are left.

    Raises `RecipeError` when the recipe has fewer steps than are done.
    """
    run, done, steps = training.run, training.done, training.engine.steps
    length = training.recipe.train.epochs or steps
    field = "epochs" if training.recipe.train.epochs else "steps"
    if done > steps:
        message = f"{done:,} steps are done, and train.{field}={length} makes {steps:,}"
        raise RecipeError(f"{run.path}: {message}; nothing was changed; give more")
    ended = reading.unless_damaged(reading.ended, run.path)
    noted = ended is not None and ended["how"] == "done"
    trained = done == steps or bool(training.exhausted)
    if not (trained and noted and fitting.finished(run, training.recipe)):
        return ""
    settings = f" --set train.{field}={2 * length}" * (done == steps)
    settings += " --set eval.patience=null" * bool(training.exhausted)
    why = training.exhausted or "nothing is left to do"
    why += f". To go on: vgx run --resume {run.short}{settings}"
    return f"Run {run.path} is done at step {done:,}; {why}"


def require_begun(run: Run) -> None:
    """Raise an error for a run that cannot go on: one that never began, or an exported model."""
    if not run.recipe_file.is_file():
        raise StorageError(f"{run.path}: it was ended before it began; start it again")
    if is_exported(run.path):
        raise RecipeError(f"{run.path}: {NO_OPTIMIZER}, which vgx export leaves out")


def never_saved(run: Run, recipe: Recipe) -> bool:
    """Return whether a run ended before the first checkpoint that its recipe asks for.

    A run that has said that it is done, or stopped after some step, has saved its steps then. A
    fork, and a run that may roll back, save before their first step; the first that is measured is
    the best, and saved.
    """
    if not run.checkpoints.is_dir() or checkpoint.committed(run):
        return False
    made = reading.unless_damaged(reading.environment, run.path) or reading.Environment()
    ended = reading.unless_damaged(reading.ended, run.path)
    saved = ended is not None and ended["how"] in ("done", "stopped") and ended["step"] > 0
    saved = saved or made.get("parent", {}).get("how") == "fork"
    lines = (entry.line for entry in reading.entries(run.path))
    due = [recipe.train.save_every, *([recipe.eval.every] if recipe.eval.best else [])]
    first = 0 if recipe.train.on_nonfinite == "rollback" else min(each for each in due if each)
    return not saved and max((line["step"] for line in lines if line), default=0) <= first


def rewound(run: Run, step: int) -> list[str]:
    """Remove what a run has logged and drawn after a step; return notices about damaged lines."""
    notices: list[str] = []
    with noticing(notices):
        run.rewind_log(step)
    frames.forget(run, step)
    return notices
