"""What a sweep varies: `--over FIELD=a,b,c` and `--over FIELD=low:high:log`; the points of a grid.

A field's values are parameters of Optuna's trials. Those of lists that are no plain numbers or
plain texts, such as `[16, 32]`, are parameters as their text.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

import vgx
from vgx.output import short
from vgx.recipe.yaml import read_setting

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
MAX_VALUES = 1000  # of one field
MAX_POINTS = 10_000
_RANGE = re.compile(r"([^:\s]+):([^:\s]+?)(:log)?")

FieldName = Annotated[str, Field(min_length=1, max_length=200)]


class Values(BaseModel):
    """A field with a list of values."""

    model_config = STRICT

    field: FieldName
    values: Annotated[tuple[Any, ...], Field(min_length=1, max_length=MAX_VALUES)]

    @property
    def choices(self) -> list[Any]:
        """The values as parameters of a trial: numbers and texts, of which no two are equal."""
        if all(map(_is_number, self.values)) or all(isinstance(v, str) for v in self.values):
            return [*self.values]
        return [json.dumps(value, ensure_ascii=False) for value in self.values]

    def value(self, parameter: Any) -> Any:
        """Return the value of a parameter. Raises `LookupError`."""
        return dict(zip(self.choices, self.values, strict=True))[parameter]

    @property
    def text(self) -> str:
        """The values, for people."""
        listed = ", ".join(str(choice) for choice in self.choices[:8])
        more = len(self.values) - 8
        return listed + (f" and {more:,} more" if more > 0 else "")

    def suggest(self, trial: Any) -> Any:
        """Return the parameter that Optuna chooses for a trial."""
        return trial.suggest_categorical(self.field, self.choices)


class Range(BaseModel):
    """A field with numbers from `low` to `high`, both included."""

    model_config = STRICT

    field: FieldName
    low: FiniteFloat
    high: FiniteFloat
    log: bool = False  # equally many of each order of magnitude
    whole: bool = False  # whole numbers only

    def value(self, parameter: Any) -> Any:
        """Return the value of a parameter. Raises `LookupError`."""
        if not _is_number(parameter) or not self.low <= parameter <= self.high:
            raise LookupError(parameter)
        return int(parameter) if self.whole else float(parameter)

    def suggest(self, trial: Any) -> Any:
        """Return the parameter that Optuna chooses for a trial."""
        if self.whole:
            return trial.suggest_int(self.field, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.field, self.low, self.high, log=self.log)

    @property
    def text(self) -> str:
        """The range, for people."""
        kind = ", logarithmic" * self.log + ", whole numbers" * self.whole
        return f"{self.low:g} to {self.high:g}{kind}"


Axis = Values | Range


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parsed(text: str) -> Axis:
    """Return what `--over TEXT` says.

    A list may be written with or without brackets: `1,2` and `[1, 2]` are the same. The numbers of
    a range are whole where both ends are. Raises `vgx.RecipeError`.
    """
    name, equals, given = text.partition("=")
    name = re.sub(r"\[(\d+)\]", r".\1", name.strip())
    place = f"--over {short(text)}"
    if not equals or not name or not given.strip():
        raise vgx.RecipeError(f"{place}: write it as FIELD=a,b,c or FIELD=low:high")
    if bounds := _RANGE.fullmatch(given.strip()):
        low, high = (read_setting(bounds[i], place).value for i in (1, 2))
        if _is_number(low) and _is_number(high):
            return _range(name, low, high, place, log=bool(bounds[3]))
    node = read_setting(given, place)
    if not isinstance(node.value, list):
        node = read_setting(f"[{given}]", place)
    if not isinstance(node.value, list):
        raise vgx.RecipeError(f"{place}: {node.unread or 'no list of values'}")
    values = node.plain()
    if len(values) > MAX_VALUES:
        raise vgx.RecipeError(f"{place}: more than {MAX_VALUES:,} values")
    texts = [json.dumps(float(value) if _is_number(value) else value) for value in values]
    if twice := [each for each in texts if texts.count(each) > 1]:
        raise vgx.RecipeError(f"{place}: {short(twice[0])} occurs twice; keep one")
    if not values:
        raise vgx.RecipeError(f"{place}: no values")
    return Values(field=name, values=tuple(values))


def _range(name: str, low: float, high: float, place: str, *, log: bool) -> Range:
    if not -math.inf < low < high < math.inf:
        raise vgx.RecipeError(f"{place}: the first number must be less than the second one")
    if log and low <= 0:
        raise vgx.RecipeError(f"{place}: a logarithmic range begins above 0")
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(field=name, low=low, high=high, log=log, whole=whole)


def grid(axes: Sequence[Values]) -> list[dict[str, Any]]:
    """Return the parameters of all combinations. Raises `vgx.RecipeError` for too many."""
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_POINTS:
        raise vgx.RecipeError(
            f"--over: the full grid has {count:,} points, more than {MAX_POINTS:,}; "
            "give fewer values, or try some of them: --trials 100"
        )
    fields = [axis.field for axis in axes]
    combined = itertools.product(*(axis.choices for axis in axes))
    return [dict(zip(fields, each, strict=True)) for each in combined]
