"""The plan of a study: what it varies, and what is better. The study's storage has it as JSON.

A storage may be a stranger's, so a plan that is read is validated like a recipe.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, Field, ValidationError, model_validator

import vgx
from vgx.output import short
from vgx.recipe.yaml import MAX_BYTES, read
from vgx_sweep.space import MAX_POINTS, STRICT, Axis, Range, Values, grid

MAX_SEEDS = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VARIANT = "left out"  # the parameter of an ablation
WHOLE = "nothing"  # its value for the recipe as it is
END = 10**9  # of `eval.every`: measured at the end alone


class Plan(BaseModel):
    """What a study tries, and what is better."""

    model_config = STRICT

    recipe: Annotated[str, Field(max_length=MAX_BYTES)]
    """The resolved recipe, as YAML."""
    over: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=50)]
    """The fields that are varied."""
    changes: dict[str, dict[str, Any]] = {}
    """Of an ablation: the settings of each variant, by its name."""
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    """The number of points that are tried."""
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 1
    """The number of runs of each point, with the recipe's seed and those after it."""
    by: Annotated[str, Field(max_length=200)]
    """The value of a metric that says which point is better."""
    better: Literal["higher", "lower"]
    search: Literal["grid", "tpe", "random"] = "grid"
    prune: Literal["halving", "hyperband"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fields = [axis.field for axis in self.over]
        if len(fields) != len(set(fields)):
            raise ValueError("a field occurs twice")
        if self.search == "grid" and len(self.grid) != self.points:
            raise ValueError("the number of points is not that of the grid")
        return self

    @property
    def grid(self) -> list[dict[str, Any]]:
        """The parameters of all points, of a grid; else an empty list."""
        lists = [axis for axis in self.over if isinstance(axis, Values)]
        return grid(lists) if self.search == "grid" and len(lists) == len(self.over) else []

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower ones are."""
        return 1 if self.better == "higher" else -1

    def base(self, registry: vgx.Registry | None = None, data: str | None = None) -> vgx.Recipe:
        """Return the recipe that is varied; `data` is where its images lie on this machine.

        Raises `vgx.RecipeError`.
        """
        tree, faults = read(self.recipe, "the study's recipe")
        plain = tree.plain()
        if faults or not isinstance(plain, dict) or "extends" in plain:
            why = faults[0].message if faults else "no resolved recipe"
            raise vgx.RecipeError(f"the study's recipe: {why}")
        return vgx.load_recipe(plain, (), registry, data, moved=True)

    def settings(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a point changes in the recipe, as for `vgx.load_recipe`.

        Raises `vgx.StorageError` for parameters that are not those of the plan.
        """
        try:
            values = {axis.field: axis.value(parameters[axis.field]) for axis in self.over}
            if self.changes:
                return {**self.changes[values[VARIANT]]}
        except (LookupError, TypeError):
            raise vgx.StorageError(
                f"a trial has other parameters than its study: {short(str(dict(parameters)))}"
            ) from None
        return values

    def recipes(
        self, base: vgx.Recipe, parameters: Mapping[str, Any], registry: vgx.Registry | None = None
    ) -> list[vgx.Recipe]:
        """Return the recipe of each seed of a point. Raises `vgx.RecipeError`."""
        settings, tree = self.settings(parameters), base.model_dump(mode="json")
        return [
            vgx.load_recipe(tree, {**settings, "train.seed": base.train.seed + number}, registry)
            for number in range(self.seeds)
        ]


def read_plan(value: Any) -> Plan:
    """Return the plan that a storage has, which is JSON as text. Raises `vgx.StorageError`."""
    try:
        return Plan.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise vgx.StorageError(
            f"the study was not made by vgx sweep: {short(place)}: {first['msg']}"
        ) from None


def require_name(name: str) -> None:
    """Raise `vgx.RecipeError` for what cannot be the name of a study and of a folder."""
    if not NAME.fullmatch(name):
        raise vgx.RecipeError(
            f"{short(name)}: the name of a study has up to 64 letters, digits, dots, hyphens and "
            "underscores, and begins with a letter or a digit"
        )


def with_metric(
    recipe: vgx.Recipe, by: str, registry: vgx.Registry, *, often: bool = False
) -> vgx.Recipe:
    """Return a recipe that measures `by`: the metric that gives it is added where it is missing.

    Without `eval.every` it is measured at the end. With `often` it must be measured while training,
    since trials are ended by it. Raises `vgx.RecipeError`.
    """
    if by not in recipe.eval.better:
        parts = [cast("type[vgx.Metric]", part) for _, part in registry.offers("metric")]
        metric = next((part.type for part in parts if by in part.gives), by)
        metrics = [*recipe.eval.metrics, metric]
        recipe = vgx.load_recipe(recipe, {"eval.metrics": metrics}, registry)
        if by not in recipe.eval.better:
            names = ", ".join(recipe.eval.better)
            raise vgx.RecipeError(f"--by {by}: choose one value of this metric: {names}")
    if recipe.eval.every is not None:
        return recipe
    if often:
        names = ", ".join(metric.type for metric in recipe.eval.metrics)
        raise vgx.RecipeError(
            "--prune ends trials by what is measured while they train; say after how many "
            f"steps: --set 'eval.metrics=[{names}]' --set eval.every=500"
        )
    return vgx.load_recipe(recipe, {"eval.every": recipe.train.steps or END}, registry)


def with_values(recipe: vgx.Recipe, settings: dict[str, Any], registry: vgx.Registry) -> vgx.Recipe:
    """Return a recipe with values of `--over`. Raises `vgx.RecipeError` that names the option."""
    try:
        return vgx.load_recipe(recipe, settings, registry)
    except vgx.RecipeError as error:
        raise vgx.RecipeError(re.sub("(?m)^--set ", "--over ", str(error))) from None


def fitted(axes: Sequence[Axis], recipe: vgx.Recipe, registry: vgx.Registry) -> list[Axis]:
    """Return the axes with ranges of whole numbers only for fields that take no others.

    Raises `vgx.RecipeError` when an end of a range, or a value of the only list, is wrong for its
    field. Of several lists some values may be right only together.
    """
    found: list[Axis] = []
    for axis in axes:
        values: Sequence[Any] = axis.values if isinstance(axis, Values) and len(axes) == 1 else ()
        if isinstance(axis, Range):
            if axis.whole:
                with contextlib.suppress(vgx.RecipeError):
                    vgx.load_recipe(recipe, {axis.field: axis.low + 0.5}, registry)
                    axis = axis.model_copy(update={"whole": False})  # noqa: PLW2901
            values = [axis.value(axis.low), axis.value(axis.high)]
        for value in values:
            with_values(recipe, {axis.field: value}, registry)
        found.append(axis)
    return found
