"""Training from Python: `vgx.run`, `vgx.resume`, `vgx.train`, `vgx.fit`."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgx.console import Console
from vgx.distributed.group import is_first
from vgx.distributed.processes import begin
from vgx.errors import Interrupted, Stopped
from vgx.files import user_path
from vgx.notebook.defined import keep
from vgx.notebook.kernel import in_notebook
from vgx.notebook.live import Captured, Live, chosen_console
from vgx.notebook.run import Run
from vgx.parts.registry import Registry, discover
from vgx.recipe.library import find_recipe
from vgx.recipe.load import AnyRecipe, load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import directory
from vgx.runs.trust import registry_of
from vgx.second.running import fit_run
from vgx.training import session
from vgx.training.signals import only_in_steps
from vgx.training.state import TrainedStep

AnyRun = directory.Run | str | Path | int | None
Overrides = Mapping[str, Any] | Sequence[str]
Steps = Generator[TrainedStep, None, Run]


def run(
    recipe: AnyRecipe,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    registry: Registry | None = None,
    quiet: bool = False,
    console: Console | None = None,
    profile: bool = False,
) -> Run:
    """Check the recipe, train it in a new run directory, and return the run.

    `recipe`, `overrides` and `data` are those of `vgx.load_recipe`; `out` is the folder of runs.
    `plugins` are files with parts; they, and the files of `registry`, are copied into the run. The
    classes of parts that this program defined are kept there too. In a notebook the training is
    shown in one output, and an interrupt saves it and returns the run, whose `state` is "stopped".
    With `quiet` nothing is shown. Raises a `VgxError`: outside of a notebook also `Stopped`, after
    a signal, with everything saved.
    """
    if isinstance(overrides, Path) or (isinstance(overrides, str) and "=" not in overrides):
        text = "vgx.run(recipe, FOLDER) is vgx.run(recipe, out=FOLDER) now"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        out, overrides = str(overrides), ()
    return session.finished(
        _steps(
            recipe, overrides, data=data, plugins=plugins, registry=registry, quiet=quiet,
            console=console, out=out, device=device, profile=profile,
        )
    )  # fmt: skip


def train(
    recipe: AnyRecipe,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    registry: Registry | None = None,
    quiet: bool = False,
    console: Console | None = None,
    profile: bool = False,
) -> Steps:
    """Train as `vgx.run` does, and give each step that is done: `for step in vgx.train(recipe)`.

    Nothing happens before the first step is taken. Leaving the loop, also by an error or by Ctrl-C
    in its body, ends the training, which is saved; `vgx.resume(step.run)` goes on. If the loop has
    a name, `steps = vgx.train(recipe)`, an error leaves it open until `steps.close()`.
    """
    steps = _steps(
        recipe, overrides, data=data, plugins=plugins, registry=registry, quiet=quiet,
        console=console, out=out, device=device, profile=profile,
    )  # fmt: skip
    return (yield from only_in_steps(steps))


def _steps(
    recipe: AnyRecipe,
    overrides: Overrides,
    *,
    data: str | Path | None,
    plugins: str | Path | Sequence[str | Path],
    registry: Registry | None,
    quiet: bool,
    console: Console | None,
    **options: Any,
) -> Steps:
    """Give each step of a new training; `options` are more arguments of `session.steps`."""
    begin()
    console = console or chosen_console(quiet=quiet or not is_first())
    loaded, registry = complete(recipe, overrides, data, plugins, registry)
    folder = find_recipe(user_path(recipe)).parent if isinstance(recipe, str | Path) else None
    steps = session.steps(
        loaded, plugins=plugins, registry=registry, console=console, folder=folder, **options
    )
    return (yield from followed(steps, console))


def complete(
    recipe: AnyRecipe,
    overrides: Overrides,
    data: str | Path | None,
    plugins: str | Path | Sequence[str | Path],
    registry: Registry | None,
) -> tuple[Recipe, Registry]:
    """Return a recipe and the plugins that a run of it keeps; see `run` for the arguments."""
    registry = registry or discover(plugins)
    loaded = load_recipe(recipe, overrides, registry, data)
    return keep(loaded, registry.with_parts(loaded))


def resume(
    run: AnyRun = None,
    overrides: Overrides = (),
    *,
    steps: int | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Run:
    """Go on with a run from its newest checkpoint, as if it had never stopped; return it.

    `steps` is the number of steps of the whole training. `overrides` may change the fields that a
    resume may change, and `data` says where the run's images lie now. A run that is done is
    returned as it is.
    """
    begin()
    console, found = console or chosen_console(quiet=quiet or not is_first()), Run(run)
    changed = None
    if overrides or steps is not None or data is not None:
        registry = registry_of(found)
        changed = load_recipe(found.recipe_file, overrides, registry, data, moved=True)
        if steps is not None:
            changed = load_recipe(changed, {"train.steps": steps}, registry)
    further = session.further_steps(found, changed, device, console)
    return session.finished(followed(further, console, found))


def fit(
    run: AnyRun = None,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
    device: str | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Run:
    """Train the prior of a trained run, or go on with it; return the run.

    `overrides` may set fields of `prior` and `sampler`, which the run keeps. `data` says where the
    run's images lie now. In a notebook an interrupt saves the prior and returns the run. Raises
    `RecipeError` for a run without a prior, and outside of a notebook `Stopped` after a signal,
    with everything saved.
    """
    console, found = console or chosen_console(quiet=quiet), Run(run)
    shown = console if isinstance(console, Live) else None
    if shown:
        shown.begin(found)
    try:
        with Captured(console):
            fit_run(found, overrides, data, device, console)
    except Stopped:
        if not in_notebook():
            raise
    finally:
        if shown:
            shown.end(found)
    return found.shown() if shown else found


def followed(
    steps: Generator[TrainedStep, None, directory.Run | None],
    console: Console,
    run: Run | None = None,
) -> Steps:
    """Give each step, shown in a notebook. There an interrupt ends it without an error."""
    shown = console if isinstance(console, Live) else None
    capturing = Captured(console)
    try:
        while True:
            with capturing:  # and not what the caller prints between two steps
                step = next(steps, None)
            if step is None:
                break
            run = step.run
            if shown:
                shown.step(step)
            yield step
    except Stopped:
        if not in_notebook() or run is None:
            raise
    except KeyboardInterrupt as error:
        if not in_notebook():
            raise
        raise Stopped(_interrupted(error, run), 2) from None
    finally:
        with capturing:
            steps.close()
        if shown:
            shown.end(run)
    assert run is not None  # at least one step is done, or it was given
    return run.shown() if shown else run


def _interrupted(error: KeyboardInterrupt, run: Run | None) -> str:
    if run is None:
        return "interrupted before the first step: no run was made"
    again = "interrupted again" if isinstance(error, Interrupted) else "interrupted"
    named = run.short if run.short.isdigit() else repr(str(run.path))
    return f"{again}: {run.path} has its last checkpoint; go on with: vgx.resume({named})"
