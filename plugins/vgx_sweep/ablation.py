"""What of a recipe can be left out, and what came of leaving it out: paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vgx
from vgx.console import Console
from vgx.output import cut
from vgx.training import session
from vgx_sweep.plan import WHOLE, Plan
from vgx_sweep.results import Row, with_spread

SURE = 0.95  # of the interval of a difference


def variants(recipe: vgx.Recipe) -> dict[str, dict[str, Any]]:
    """Return the settings that leave out each loss, each augmentation and the average, by name."""
    found: dict[str, dict[str, Any]] = {}
    if len(recipe.losses) > 1:
        for i, loss in enumerate(recipe.losses):
            rest = [part for k, part in enumerate(recipe.losses) if k != i]
            found[f"loss {loss.label}"] = {"losses": _plain(rest)}
    for field in ("augment", "diff_augment"):
        parts = getattr(recipe, field)
        for i, part in enumerate(parts):
            rest = [other for k, other in enumerate(parts) if k != i]
            twice = sum(other.type == part.type for other in parts[:i])
            name = f"{field} {part.type}" + (f" {twice + 1}" if twice else "")
            found[name] = {field: _plain(rest)}
    if recipe.train.ema is not None:
        found["averaged weights"] = {"train.ema": None, "train.ema_warmup": False}
    return found


def _plain(parts: Sequence[vgx.Component]) -> list[Any]:
    return [part.model_dump(mode="json") for part in parts]


def possible(
    recipe: vgx.Recipe, every: dict[str, dict[str, Any]], registry: vgx.Registry, device: str | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the variants that can be trained, and why others cannot, by name.

    Each is checked like a recipe of `vgx check`. A loss without which nothing trains the
    discriminator is left out together with the discriminator.
    """
    allowed: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    alone: dict[str, Any] = {"discriminator": None, "discriminators": None, "diff_augment": []}
    for name, settings in every.items():
        trials = {name: settings}
        if recipe.judges and "losses" in settings:
            trials[f"{name} with the discriminator"] = {**settings, **alone}
        why = ""
        for title, changes in trials.items():
            try:
                changed = vgx.load_recipe(recipe, changes, registry)
                session.check(changed, registry, device, Console(quiet=True))
            except vgx.RecipeError as error:
                why = why or " ".join(cut(str(error))[:2])
            else:
                allowed[title] = changes
                break
        else:
            refused[name] = why
    return allowed, refused


@dataclass(frozen=True)
class Difference:
    """What came of leaving something out: the figure without it minus the figure with it."""

    name: str
    mean: float  # of the figure without it
    spread: float | None  # standard deviation over the seeds
    difference: float  # mean over the seeds
    paired: float | None  # standard deviation of the differences seed by seed
    unpaired: float | None  # that of the difference, if the seeds were not the same
    interval: float | None  # half of the 95 % interval of the mean difference
    better: str  # "higher" or "lower"

    @property
    def reading(self) -> str:
        """What it says, for people."""
        if self.interval is None:
            return "unknown with one seed"
        if abs(self.difference) <= self.interval:
            return "no difference seen"
        rises = self.difference > 0
        return "better without it" if rises == (self.better == "higher") else "worse without it"


def differences(plan: Plan, rows: Sequence[Row]) -> list[Difference]:
    """Return the difference of each variant that is complete, what matters most first.

    For differences d_1 ... d_n of n seeds with standard deviation s, the interval of their mean is
    t s / sqrt(n), with the quantile t of Student's distribution of n - 1 degrees of freedom.
    """
    from scipy import stats

    done = {next(iter(row.parameters.values())): row for row in rows if row.mean is not None}
    whole = done.pop(WHOLE, None)
    if whole is None:
        return []
    found = []
    for name, row in done.items():
        seeds = [seed for seed in whole.figures if seed in row.figures]
        pairs = [(row.figures[seed], whole.figures[seed]) for seed in seeds]
        each = [without - with_it for without, with_it in pairs]
        if not each:
            continue
        paired = statistics.stdev(each) if len(each) > 1 else None
        unpaired = interval = None
        if paired is not None:
            columns = zip(*pairs, strict=True)
            unpaired = math.hypot(*(statistics.stdev(column) for column in columns))
            quantile = float(stats.t.ppf((1 + SURE) / 2, len(each) - 1))
            interval = quantile * paired / math.sqrt(len(each))
        assert row.mean is not None
        difference = statistics.fmean(each)
        about = (row.mean, row.spread, difference, paired, unpaired, interval, plan.better)
        found.append(Difference(name, *about))
    return sorted(found, key=lambda d: plan.sign * d.difference)


HEADER = ("without", "figure", "difference", "95 % interval", "paired", "unpaired", "what it says")


def table(found: Sequence[Difference]) -> list[tuple[str, ...]]:
    """Return the cells of a table of differences, below `HEADER`."""
    rows = []
    for each in found:
        spreads = (each.interval, each.paired, each.unpaired)
        interval, *others = ["-" if value is None else f"{value:.2g}" for value in spreads]
        rows.append((
            each.name, with_spread(each.mean, each.spread), f"{each.difference:+.3g}",
            interval if each.interval is None else f"± {interval}", *others, each.reading,
        ))  # fmt: skip
    return rows
