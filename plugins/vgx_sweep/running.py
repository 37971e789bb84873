"""A study from its plan to its page: planned, worked on, shown."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import vgx
from vgx.console import Console
from vgx.errors import DivergedError, LostError, Stopped
from vgx.files import storage, write_file
from vgx.output import short
from vgx_sweep import ablation, results
from vgx_sweep import storage as storing
from vgx_sweep.plan import VARIANT, WHOLE, Plan, fitted, with_metric, with_values
from vgx_sweep.results import shown
from vgx_sweep.space import Values, grid, parsed
from vgx_sweep.storage import Study, sweeps_dir
from vgx_sweep.training import Machine, train
from vgx_sweep.work import work
from vgx_sweep.workers import end_with_parent, run_workers

FIRST = 3  # failures that are explained


# --- planning ------------------------------------------------------------------------------------


def planned(
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    over: Sequence[str],
    trials: int | None,
    seeds: int,
    by: str | None,
    search: str | None,
    prune: str | None,
) -> Plan:
    """Return the plan of a sweep. Raises `vgx.RecipeError` for what cannot be tried."""
    if not over:
        raise vgx.RecipeError("what is varied? Give --over FIELD=a,b,c or --over FIELD=low:high")
    by = _by(recipe, by, registry)
    recipe = with_metric(recipe, by, registry, often=prune is not None)
    axes = [parsed(text) for text in over]
    fields = [axis.field for axis in axes]
    if twice := [name for name in fields if fields.count(name) > 1]:
        raise vgx.RecipeError(f"--over {short(twice[0])} occurs twice; give all its values once")
    if "train.seed" in fields:
        raise vgx.RecipeError("--over train.seed: for runs with other seeds, give --seeds N")
    axes = fitted(axes, recipe, registry)
    if trials is None and not all(isinstance(axis, Values) for axis in axes):
        raise vgx.RecipeError("a range has no end of values: say how many to try, --trials 20")
    if trials is None and search is not None:
        raise vgx.RecipeError(f"--search {search} needs --trials N; without it a grid is tried")
    how = "grid" if trials is None else search or "tpe"
    plan = _plan(recipe, axes, by, seeds, points=trials, search=how, prune=prune)
    for parameters in plan.grid:  # a wrong one is an error before anything is trained
        with_values(recipe, plan.settings(parameters), registry)
    return plan


def planned_ablation(recipe: vgx.Recipe, machine: Machine, seeds: int, by: str | None) -> Plan:
    """Return the plan of an ablation; print what cannot be left out."""
    by = _by(recipe, by, machine.registry)
    recipe = with_metric(recipe, by, machine.registry)
    every = ablation.variants(recipe)
    with machine.console.phase(f"Checking {len(every)} variants"):
        allowed, refused = ablation.possible(recipe, every, machine.registry, machine.device)
    for name, why in refused.items():
        machine.console.warn(f"{name} cannot be left out: {why}")
    if not allowed:
        raise vgx.RecipeError("nothing of this recipe can be left out")
    changes = {WHOLE: {}, **allowed}
    axis = Values(field=VARIANT, values=tuple(changes))
    return _plan(recipe, [axis], by, seeds, changes=changes)


def _plan(recipe: vgx.Recipe, axes: Sequence[Any], by: str, seeds: int, **more: Any) -> Plan:
    """Return a plan; without `points` in `more` that of the whole grid."""
    more["points"] = more.get("points") or len(grid(axes))
    given = {"recipe": vgx.dump_recipe(recipe), "over": tuple(axes), "seeds": seeds, "by": by}
    return Plan.model_validate({**given, "better": recipe.eval.better[by], **more})


def _by(recipe: vgx.Recipe, by: str | None, registry: vgx.Registry) -> str:
    if by or recipe.eval.best:
        return by or cast("str", recipe.eval.best)
    known = sorted({*recipe.eval.better} or {part.type for _, part in registry.offers("metric")})
    raise vgx.RecipeError(f"what says which is better? Give --by METRIC: {', '.join(known)}")


def unused(name: str) -> str:
    """Return a name for a study that no study in the folder of sweeps has."""
    others = (f"{name[:60]}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], others) if not (sweeps_dir() / n).exists())


def newest() -> str:
    """Return the name of the newest study in the folder of sweeps."""
    if known := storing.names():
        return known[-1]
    raise vgx.StorageError(f"{sweeps_dir()}: no studies here yet; make one with: vgx sweep RECIPE")


# --- working -------------------------------------------------------------------------------------


def go(study: Study, machine: Machine, workers: int, *, worker: bool = False) -> None:
    """Work on a study until nothing of it is left, then show what came of it.

    Raises `DivergedError` when no point of it could be trained.
    """
    console, plan = machine.console, study.plan
    if not worker:
        runs = f" x {plan.seeds} seeds" if plan.seeds > 1 else ""
        console.print(f"Study {study.name}: {plan.points:,} points{runs}, by {plan.by}")
        for axis in plan.over:
            console.print(f"  {axis.field}: {axis.text}")
        console.print(f"One more worker: {_again(study)}")
    try:
        if workers > 1:
            _several(study, machine, workers)
        else:
            _alone(study, machine, worker=worker)
    except Stopped as error:
        message = f"{error}; go on with: {_again(study)}" if not worker else str(error)
        raise Stopped(message, error.exit_code - 128) from None
    if not worker and all(row.state == "failed" for row in show(study, machine)):
        raise DivergedError(f"study {study.name}: no point of it could be trained")


def _again(study: Study) -> str:
    where = "" if study.server is None else f" --storage {storing.hidden(study.server)}"
    return f"vgx sweep --join {study.name}{where}"


def _alone(study: Study, machine: Machine, *, worker: bool) -> None:
    """Be one worker; the lines of trainings go to a file, or, of one of several, where all goes."""
    if worker:
        end_with_parent()
    base, registry = study.plan.base(machine.registry, machine.data), machine.registry
    with contextlib.ExitStack() as stack:
        quiet = machine
        if not worker:
            log = stack.enter_context(_log(study, "").open("a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(log))
            quiet = replace(machine, console=Console(log))
        work(
            study, base, registry,
            lambda recipe, report: train(recipe, study.plan.by, quiet, report),
            machine.console.print,
        )  # fmt: skip


def _log(study: Study, number: str) -> Path:
    """Return a file in the folder of the study for the lines of a worker's trainings."""
    name = f"{platform.node() or 'worker'}-{os.getpid()}{number}.txt"
    path = storing.place(study.name, "logs", name)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return path


def _several(study: Study, machine: Machine, workers: int) -> None:
    """Start several workers, and print what they finish."""
    arguments = ["sweep", "--join", study.name, "--worker"]
    arguments += [f"--plugin={path.absolute()}" for path in machine.plugins]
    options = {"--out": machine.out, "--device": machine.device, "--data": machine.data}
    options |= {"--folder": machine.folder}
    arguments += [f"{name}={value}" for name, value in options.items() if value is not None]
    printed = {trial.number for trial in study.trials() if trial.state.is_finished()}

    def print_finished() -> None:
        with contextlib.suppress(storing.UnreachableError):  # the workers wait for the server
            for trial in study.trials():
                if trial.state.is_finished() and trial.number not in printed:
                    printed.add(trial.number)
                    row = results.row_of(study.plan, trial)
                    machine.console.print(results.line(study.plan, row))

    logs = [_log(study, f"-{number}") for number in range(1, workers + 1)]
    variables = {"VGX_STORAGE": study.server} if study.server else {}
    codes, number = run_workers(arguments, variables, logs, print_finished)
    print_finished()
    if number:
        raise Stopped("all workers have ended, and their runs are saved", number)
    for code, log in zip(codes, logs, strict=True):
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            last = short(lines[-1]) if lines else "it has printed nothing"
            machine.console.warn(f"a worker ended with code {code}: {last} ({log})")
    if all(codes):
        code = codes[0] if len({*codes}) == 1 and codes[0] > 0 else vgx.StorageError.exit_code
        raise LostError(f"no worker is left; go on with: {_again(study)}", code)


# --- showing -------------------------------------------------------------------------------------


def show(study: Study, machine: Machine) -> list[results.Row]:
    """Print what came of a study so far, write its best recipe and its page; return its rows."""
    from vgx_report.html import page
    from vgx_sweep.sweep_page import gather

    console, plan = machine.console, study.plan
    rows = results.rows_of(study)
    console.print("")
    header = ("trial", "state", *(axis.field for axis in plan.over), plan.by, "runs")
    lines = [
        (str(row.trial), row.state if row.tries == 1 else f"{row.state}, try {row.tries}",
         *row.cells(plan), row.text, " ".join(row.runs.values()) or "-")
        for row in rows
    ]  # fmt: skip
    console.table(header, lines)
    for row in [row for row in rows if row.reason][:FIRST]:
        console.print(f"Trial {row.trial} failed: {row.reason}")
    found = results.importances(plan, rows)
    if found:
        console.print("\nImportance of each field, ± over other points and seeds")
        console.table(
            ("field", "share"),
            [(each.field, f"{each.mean:.0%} ± {each.spread:.0%}") for each in found],
        )
    left_out = ablation.differences(plan, rows) if plan.changes else []
    if left_out:
        console.print(f"\n{plan.by} of {plan.seeds} seeds, {plan.better} is better")
        console.table(ablation.HEADER, ablation.table(left_out))
    data = gather(study, rows, found, left_out, machine)
    if data["recipe"]:
        write_file(best := storing.place(study.name, "best.yaml"), data["recipe"])
        console.print(f"\nBest: trial {rows[0].trial}, {shown(rows[0].parameters)}, "
                      f"{plan.by} {rows[0].text}")  # fmt: skip
        console.print(f"Its recipe {best}")
    shown_on = storing.place(study.name, "sweep.html")
    write_file(shown_on, page(data, "sweep", package="vgx_sweep"))
    console.print(f"Page {shown_on}")
    return rows
