"""One run of a trial: an ordinary run directory, trained, resumed, or found as it is."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import vgx
from vgx.check.trials import as_before
from vgx.console import Console
from vgx.data.store import open_source
from vgx.engine.build import pick_device
from vgx.errors import DivergedError
from vgx.runs import reading
from vgx.runs.directory import Run, every
from vgx.training import session
from vgx.training.preparing import read_images

POLL = 2.0  # seconds between two looks at a run that another process trains
RATE_CHANGED = re.compile(r"train\.optimizers\.\w+\.lr: .* until step ")  # in a log

Report = Callable[[int, float], bool]  # takes a step and a value; says whether to end the training


@dataclass(frozen=True)
class Machine:
    """Where and how the runs of a study are trained on this machine."""

    out: Path | None
    device: str | None
    plugins: Sequence[Path]
    registry: vgx.Registry
    data: str | None
    console: Console = field(default_factory=Console)
    folder: Path | None = None  # of the recipe, whose git commit a run notes

    def __post_init__(self) -> None:
        pick_device(self.device)  # one that is not here is refused before a study is made


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    run: Run
    figure: float | None  # None: its training was ended early, and can go on


def train(recipe: vgx.Recipe, by: str, machine: Machine, report: Report) -> Trained:
    """Train a recipe, unless a run of it is done; go on with one that was stopped.

    `report` gets each measurement of `by`, also those of an earlier process. Raises a `VgxError`:
    `Stopped` after a signal, with everything saved.
    """
    run, how, message = _earlier(recipe, machine)
    steps: Generator[Any, None, Any]
    if run is None:
        steps = session.steps(
            recipe, machine.out, machine.device, (), machine.registry, machine.console,
            machine.folder,
        )  # fmt: skip
    else:
        if how == "diverged":
            raise DivergedError(message or f"{run.path}: it diverged before")
        before = reading.measured(run.path, by)
        pruned = [report(line["step"], line["metrics"][by]) for line in before]
        if how == "done":
            return Trained(run, _figure(run, recipe, by))
        if any(pruned):
            return Trained(run, None)
        steps = session.further_steps(run, None, machine.device, machine.console)
    with contextlib.closing(steps):  # whatever ends the loop, the run is saved
        for step in steps:
            run = Run(step.run.path)
            value = step.line and step.line.get("metrics", {}).get(by)
            if value is not None and report(step.number, value) and step.number < step.of:
                return Trained(run, None)
    assert run is not None
    return Trained(run, _figure(run, recipe, by))


def _earlier(recipe: vgx.Recipe, machine: Machine) -> tuple[Run | None, str, str]:
    """Return a run of the recipe to use or to go on with, how it ended, and its message.

    A run that another process trains is waited for. One that another machine trains, or trained
    before it was switched off, is left alone, and so is one without a checkpoint.
    """
    known = runs_of(recipe, machine)
    run = next((run for run in known if _has_its_images(run, recipe, machine)), None)
    while run is not None and (holder := run.holder()):
        if run.advice(holder):
            return None, "", ""
        time.sleep(POLL)
    if run is None:
        return None, "", ""
    ended = reading.unless_damaged(reading.ended, run.path)
    how, message = (ended["how"], ended.get("message", "")) if ended else ("killed", "")
    usable = how in ("done", "diverged") or any(run.checkpoints.glob("step-*"))
    return (run if usable else None), how, message


def _figure(run: Run, recipe: vgx.Recipe, by: str) -> float:
    """Return the last measurement; of `eval.best` the best one, whose checkpoint is kept."""
    values: list[float] = [line["metrics"][by] for line in reading.measured(run.path, by)]
    if recipe.eval.best == by:
        choose = max if recipe.eval.better[by] == "higher" else min
        figure = choose(filter(math.isfinite, values), default=math.nan)
    else:
        figure = values[-1] if values else math.nan
    if not math.isfinite(figure):
        raise DivergedError(f"{run.path}: {by} was not measured, or is not finite at the end")
    return figure


def runs_of(recipe: vgx.Recipe, machine: Machine) -> list[Run]:
    """Return runs of the same resolved recipe: those that are done before others, the newest first.

    Its name may be another one, and what was `auto` may have been settled. Forks, runs that were
    imported, and those whose learning rate was changed on the way are none.
    """
    key = _coarse(vgx.dump_recipe(recipe))
    runs: list[tuple[bool, Run]] = []
    for run in reversed(every(machine.out)):
        try:
            if _coarse(reading.recipe_text(run.path)) != key:
                continue
            stored = vgx.load_recipe(run.recipe_file, (), machine.registry)
            about, ended = reading.environment(run.path) or {}, reading.ended(run.path)
        except vgx.VgxError:  # a damaged one is no run of this recipe
            continue
        same = as_before(recipe, stored).model_copy(update={"name": stored.name}) == stored
        own = "data" in about and about.get("parent", {}).get("how") != "fork"
        lines = (entry.line for entry in reading.entries(run.path) if same and entry.line)
        notes = (text for line in lines for text in line.get("warnings", ()))
        if same and own and not any(map(RATE_CHANGED.match, notes)):
            runs.append((ended is not None and ended["how"] == "done", run))
    return [run for _, run in sorted(runs, key=lambda pair: not pair[0])]


def _has_its_images(run: Run, recipe: vgx.Recipe, machine: Machine) -> bool:
    """Return whether the images of a recipe are still those that a run of it was trained on."""
    stored = vgx.load_recipe(run.recipe_file, (), machine.registry)
    image = replace(stored.image, background=stored.image.background.replace("auto", "black"))
    source, _ = open_source(recipe.dataset, image)
    store = read_images(recipe.model_copy(update={"image": image}), source, Console(quiet=True))
    return bool(store.content == run.environment()["data"]["content"])


def _coarse(text: str) -> str:
    """Return the text of a recipe without what may be settled when a run begins.

    Of two texts that differ here the recipes differ too; reading all YAML takes a thousand times as
    long.
    """
    words = " ".join(text.split()).replace(".0e", "e")  # 5.0e-05 was once written as 5e-05
    words = re.sub(r"(^| )image: .*? latent: ", " latent: ", words, count=1)
    return re.sub(r"\b(name|steps|precision|compile): [^\s,}]+", r"\1", words)
