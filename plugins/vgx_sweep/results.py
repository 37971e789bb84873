"""What came of a study: a row for each point, the importance of the fields, the best recipe."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

import vgx
from vgx_sweep.plan import MAX_SEEDS, Plan
from vgx_sweep.storage import POINT, REASON, Study, require_optuna
from vgx_sweep.work import FIGURES, RUNS, VALUES

REPEATS = 8  # of the importance, each of other trials and seeds
TREES = 32  # of its forests
ENOUGH = 4  # complete trials
_Short = Annotated[str, Field(max_length=300)]
_FIGURES = TypeAdapter(Annotated[dict[_Short, FiniteFloat], Field(max_length=MAX_SEEDS)])
_VALUES = TypeAdapter(
    Annotated[dict[_Short, dict[_Short, FiniteFloat]], Field(max_length=MAX_SEEDS)]
)
_RUNS = TypeAdapter(Annotated[dict[_Short, _Short], Field(max_length=MAX_SEEDS)])
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running",
           "WAITING": "waiting"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One point of a study, by its newest trial."""

    point: int
    trial: int
    state: str
    parameters: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)  # by seed
    values: dict[str, dict[str, float]] = field(default_factory=dict)  # all metrics, by seed
    runs: dict[str, str] = field(default_factory=dict)  # names of run directories, by seed
    reason: str = ""  # why it failed
    tries: int = 1
    seconds: float | None = None

    @property
    def mean(self) -> float | None:
        """The mean over the seeds, of a trial that is complete."""
        done = self.state == "complete" and self.figures
        return statistics.fmean(self.figures.values()) if done else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None for one seed."""
        more = self.mean is not None and len(self.figures) > 1
        return statistics.stdev(self.figures.values()) if more else None

    @property
    def text(self) -> str:
        """Mean and spread, for people."""
        return with_spread(self.mean, self.spread)


def with_spread(mean: float | None, spread: float | None) -> str:
    """Return a figure with its spread, for people."""
    if mean is None:
        return "-"
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"


def rows_of(study: Study) -> list[Row]:
    """Return a row for each point: the complete ones first, the best at the top.

    A point whose trial was tried again is one row. Raises `vgx.StorageError` for trials that no
    worker has written.
    """
    best: dict[int, Row] = {}
    order = ("failed", "waiting", "running", "pruned", "complete")
    for trial in study.trials():
        row = row_of(study.plan, trial)
        before = best.get(row.point)
        tries = 1 if before is None else before.tries + 1
        if before is not None and order.index(before.state) > order.index(row.state):
            row = before
        best[row.point] = Row(**{**vars(row), "tries": tries})
    sign = study.plan.sign

    def place(row: Row) -> tuple[int, float, int]:
        return -order.index(row.state), -sign * (row.mean or 0.0), row.point

    return sorted(best.values(), key=place)


def row_of(plan: Plan, trial: Any) -> Row:
    """Return the row of a trial, whose values are those of a stranger perhaps."""
    about, name = trial.user_attrs, f"trial {trial.number}"
    point = about.get(POINT)
    if not isinstance(point, int) or not 0 <= point < plan.points:
        raise vgx.StorageError(f"{name}: it is not one that vgx sweep has made")
    if trial.params:
        plan.settings(trial.params)
    try:
        figures = _FIGURES.validate_python(about.get(FIGURES, {}), strict=True)
        values = _VALUES.validate_python(about.get(VALUES, {}), strict=True)
        runs = _RUNS.validate_python(about.get(RUNS, {}), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise vgx.StorageError(f"{name}: {first['msg']}") from None
    spent = trial.duration.total_seconds() if trial.duration is not None else None
    reason = str(about.get(REASON, ""))[:300]
    return Row(point, trial.number, _STATES[trial.state.name], {**trial.params}, figures, values,
               runs, reason, 1, spent)  # fmt: skip


def best_recipe(plan: Plan, rows: Sequence[Row], base: vgx.Recipe) -> vgx.Recipe | None:
    """Return the recipe of the best point, with the first seed; None when none is complete."""
    done = [row for row in rows if row.mean is not None]
    return plan.recipes(base, done[0].parameters)[0] if done else None


@dataclass(frozen=True)
class Importance:
    """How much of the differences between points comes from a field: a share of 1."""

    field: str
    mean: float
    spread: float  # standard deviation over repeats

    @property
    def text(self) -> str:
        """Share and spread, for people."""
        return f"{self.mean:.0%} ± {self.spread:.0%}"


def importances(plan: Plan, rows: Sequence[Row]) -> list[Importance]:
    """Return the importance of each field (fANOVA, Hutter et al. 2014), the greatest first.

    It is computed several times: each time of other points, drawn from all with replacement, of
    other seeds drawn in the same way, and with another random forest. So the spread says how much
    it depends on what happened to be tried. Nothing for one field, or for few points.
    """
    optuna = require_optuna()
    done = [row for row in rows if row.mean is not None]
    if len(plan.over) < 2 or len(done) < ENOUGH:
        return []
    shares: dict[str, list[float]] = {axis.field: [] for axis in plan.over}
    distributions = {axis.field: axis.distribution(optuna.distributions) for axis in plan.over}
    for repeat in range(REPEATS):
        chance = random.Random(repeat)  # noqa: S311 - no secret
        study = optuna.create_study()
        for row in chance.choices(done, k=len(done)):
            figures = [*row.figures.values()]
            value = statistics.fmean(chance.choices(figures, k=len(figures)))
            study.add_trial(
                optuna.trial.create_trial(
                    params=row.parameters, distributions=distributions, value=value
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=repeat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its forest, and of values that are all equal
            try:
                found = optuna.importance.get_param_importances(study, evaluator=evaluator)
            except (ValueError, RuntimeError):  # the same point each time
                continue
        for name, each in shares.items():
            each.append(found.get(name, 0.0))
    listed = [
        Importance(name, statistics.fmean(each), statistics.stdev(each))
        for name, each in shares.items()
        if len(each) > 1 and all(map(math.isfinite, each))
    ]
    return sorted(listed, key=lambda each: -each.mean)


def shown(parameters: Mapping[str, Any]) -> str:
    """Return the parameters of a point on one line."""
    return ", ".join(f"{name}={cell(value)}" for name, value in parameters.items())


def cell(value: Any) -> str:
    """Return a parameter for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
