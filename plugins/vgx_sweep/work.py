"""A worker: takes a trial that waits, trains its runs, notes what came of it; and so on."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import vgx
from vgx.errors import DivergedError, RecipeError
from vgx.output import cut
from vgx_sweep import storage as storing
from vgx_sweep.plan import Plan
from vgx_sweep.results import line, row_of
from vgx_sweep.storage import Study, UnreachableError, require_optuna

if TYPE_CHECKING:
    from vgx_sweep.training import Report, Trained

POLL = 1.0  # seconds between two looks at trials of other workers
SAME_REASON = 3  # trials that fail for one reason before a worker ends
DEAD = "taken for dead by another worker; it is tried again"
MAX_FAILURES = 10  # of the storage to answer, one after the other

TrainOne = Callable[[vgx.Recipe, "Report"], "Trained"]


def work(
    study: Study,
    base: vgx.Recipe,
    registry: vgx.Registry | None,
    train: TrainOne,
    print_line: Callable[[str], None],
) -> None:
    """Work until no trial waits and none runs elsewhere; `print_line` gets one for each trial.

    An error that is not the fault of a point ends the worker, and its trial waits again. So do
    three recipes that are refused one after the other for the same reason.
    """
    study.optuna.pruner = pruner(study.plan, base)
    reasons: list[str] = []
    failures, announced = 0, False  # of the storage; that this worker waits for others
    while True:
        try:
            trial = storing.claim(study, lambda n: sampler(study.plan, base.train.seed, n))
            if trial is None and not (announced := _wait(study, print_line, announced=announced)):
                return
            if trial is not None:
                refused = attempt(study, trial, base, registry, train)
                row = row_of(study.plan, study.trials()[trial.number])
                dead = row.state == "failed" and not row.reason
                print_line(line(study.plan, replace(row, reason=DEAD) if dead else row))
                reasons = [*reasons, refused][-SAME_REASON:]
                announced = False
            failures = 0
        except UnreachableError as error:
            failures += 1
            if failures == MAX_FAILURES:
                raise
            print_line(f"{error}; trying again")
            time.sleep(POLL)
        if len(reasons) == SAME_REASON and len({*reasons}) == 1 and reasons[0]:
            raise RecipeError(f"{SAME_REASON} recipes refused for the same reason: {reasons[0]}")


def _wait(study: Study, print_line: Callable[[str], None], *, announced: bool) -> bool:
    """Wait a moment for trials of other workers; return False when nothing is left to do."""
    if running := study.trials("RUNNING"):
        if not announced:
            numbers = ", ".join(str(each.number) for each in running[:5])
            print_line(f"No trial waits; other workers do trial {numbers}. Ctrl-C ends this one")
        time.sleep(POLL)
    elif points := storing.lost(study):
        storing.put_again(study, points[0])
    else:
        return False
    return True


def attempt(
    study: Study, trial: Any, base: vgx.Recipe, registry: vgx.Registry | None, train: TrainOne
) -> str:
    """Do one trial: all runs of a point, one after the other; return why a recipe was refused."""
    figures: dict[str, float] = {}
    runs: dict[str, str] = {}
    with storing.reaching(study.name), storing.alive(study, trial):
        try:
            parameters = {axis.field: axis.suggest(trial) for axis in study.plan.over}
            for number, recipe in enumerate(study.plan.recipes(base, parameters, registry)):
                # Of the first seed alone, so that it is compared with the first seed of others.
                report = reporting(study, trial) if number == 0 else lambda *_: False
                done = train(recipe, report)
                seed = str(recipe.train.seed)
                runs[seed] = done.run.path.name
                trial.set_user_attr(storing.RUNS, runs)
                if done.figure is None:
                    storing.finish(study, trial, "PRUNED")
                    return ""
                figures[seed] = done.figure
                trial.set_user_attr(storing.FIGURES, figures)
        except require_optuna().exceptions.UpdateFinishedTrialError:
            return ""  # another worker took this one for dead
        except (RecipeError, DivergedError) as error:
            # The study and its page are for others too: the path of a run is left out.
            reason = cut(re.sub(r"^\S*/(?=\d{4,}-)", "", str(error)))[0]
            storing.finish(study, trial, "FAIL", reason=reason)
            return reason if isinstance(error, RecipeError) else ""
        except BaseException:
            storing.give_back(study, trial)
            raise
    storing.finish(study, trial, "COMPLETE", statistics.fmean(figures.values()))
    return ""


def reporting(study: Study, trial: Any) -> Report:
    """Return a function that reports a measurement, and says whether the trial is pruned."""
    known = {*study.optuna.get_trials(deepcopy=False)[trial.number].intermediate_values}

    def report(step: int, value: float) -> bool:
        if step not in known:  # a trial that is tried again has reported it before
            known.add(step)
            trial.report(value, step)
        return bool(trial.should_prune())

    return report


def sampler(plan: Plan, seed: int, number: int) -> Any:
    """Return Optuna's sampler for a trial: its random numbers depend on the trial alone."""
    samplers = require_optuna().samplers
    own = (seed * 1_000_003 + number) % 2**32
    if plan.search == "tpe":
        return samplers.TPESampler(seed=own, constant_liar=True)
    return samplers.RandomSampler(seed=own)


def pruner(plan: Plan, base: vgx.Recipe) -> Any:
    """Return Optuna's pruner of a plan; its unit is a measurement."""
    pruners = require_optuna().pruners
    every = base.eval.every or 1
    if plan.prune == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=every, reduction_factor=3)
    if plan.prune == "hyperband":
        most = base.train.steps or "auto"
        return pruners.HyperbandPruner(min_resource=every, max_resource=most, reduction_factor=3)
    return pruners.NopPruner()
