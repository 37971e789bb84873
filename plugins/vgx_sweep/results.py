"""What came of a study: a row for each point, the importance of the fields, the best recipe."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError

import vgx
from vgx_sweep.plan import MAX_SEEDS, Plan
from vgx_sweep.storage import Study, require_optuna

REPEATS = 8  # of the importance, each of other trials and seeds
TREES = 32  # of its forests
ENOUGH = 4  # complete trials
_Short = Annotated[str, Field(max_length=300)]


class _Notes(BaseModel):
    """What a worker has noted of a trial; that of a stranger may be anything."""

    model_config = ConfigDict(strict=True)

    point: NonNegativeInt
    figures: Annotated[dict[_Short, FiniteFloat], Field(max_length=MAX_SEEDS)] = {}
    runs: Annotated[dict[_Short, _Short], Field(max_length=MAX_SEEDS)] = {}
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One point of a study, by its newest trial."""

    point: int
    trial: int
    state: str
    parameters: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)  # by seed
    runs: dict[str, str] = field(default_factory=dict)  # names of run directories, by seed
    reason: str = ""  # why it failed
    tries: int = 1
    newest: tuple[int, float] | None = None  # the last measurement: its step and value
    seconds: float = 0.0

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

    def cells(self, plan: Plan) -> list[str]:
        """Return the parameters, for a table."""
        return [cell(self.parameters[a.field]) if self.parameters else "-" for a in plan.over]

    @property
    def text(self) -> str:
        """Mean and spread, for people; of a pruned trial the last measurement."""
        if self.state == "pruned" and self.newest:
            return f"{self.newest[1]:.4g} at step {self.newest[0]:,}"
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
    order = ("complete", "pruned", "running", "waiting", "failed")
    for trial in study.trials():
        row = row_of(study.plan, trial)
        before = best.get(row.point)
        if before is not None:
            newest = row if order.index(row.state) <= order.index(before.state) else before
            row = replace(newest, tries=before.tries + 1)
        best[row.point] = row
    sign = study.plan.sign
    return sorted(
        best.values(),
        key=lambda row: (order.index(row.state), -sign * (row.mean or 0.0), row.point),
    )


def row_of(plan: Plan, trial: Any) -> Row:
    """Return the row of a trial. Raises `vgx.StorageError` for one that no worker has written."""
    try:
        notes = _Notes.model_validate(trial.user_attrs)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise vgx.StorageError(f"trial {trial.number}: {first['msg']}") from None
    if notes.point >= plan.points:
        raise vgx.StorageError(f"trial {trial.number}: it is not one that vgx sweep has made")
    if trial.params:
        plan.settings(trial.params)
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    measured = trial.intermediate_values.items()
    spent = trial.duration.total_seconds() if trial.duration is not None else 0.0
    return Row(notes.point, trial.number, state, {**trial.params}, notes.figures, notes.runs,
               notes.reason[:300], 1, max(measured, default=None), spent)  # fmt: skip


def line(plan: Plan, row: Row) -> str:
    """Return how a trial ended, for people."""
    figure = f"{plan.by} {row.text}"
    came = {"complete": figure, "pruned": f"pruned, {figure}"}.get(row.state, row.state)
    why = f": {row.reason}" if row.reason else ""
    return f"Trial {row.trial}, {row.seconds:.0f} s, {shown(row.parameters)}: {came}{why}"


def best_recipe(plan: Plan, rows: Sequence[Row], base: vgx.Recipe) -> str:
    """Return the recipe of a sweep's best point, with the first seed; "" when none is complete."""
    if plan.changes or not rows or rows[0].mean is None:
        return ""
    return vgx.dump_recipe(plan.recipes(base, rows[0].parameters)[0])


@dataclass(frozen=True)
class Importance:
    """How much of the differences between points comes from a field: a share of 1."""

    field: str
    mean: float
    spread: float  # standard deviation over repeats


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
    for repeat in range(REPEATS):
        generator = random.Random(repeat)  # noqa: S311 - no secret
        study = optuna.create_study()
        for row in generator.choices(done, k=len(done)):
            figures = [*row.figures.values()]
            value = statistics.fmean(generator.choices(figures, k=len(figures)))
            fixed = optuna.trial.FixedTrial(row.parameters)
            for axis in plan.over:
                axis.suggest(fixed)
            about = {"params": fixed.params, "distributions": fixed.distributions, "value": value}
            study.add_trial(optuna.create_trial(**about))
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
