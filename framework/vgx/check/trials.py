"""What suits the device: precision and compiling, tried before a long training.

`auto` in `train.precision` and `train.compile` is settled here; a run's own recipe says as what.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vgx import rng
from vgx.data.store import Store, as_batch
from vgx.engine.engine import Engine
from vgx.engine.memory import ran_out
from vgx.errors import noticing
from vgx.recipe.model import Recipe

LONG = 600.0  # seconds that a training takes at least for trials to pay
# How much faster than plain float32 another way must be: what is nearly even falls alike each time.
GAIN = 1.15
FEW = 8  # pictures in a trial on a CPU, where a step costs as much as its pictures
STEPS = 3  # of a trial, after the first
PATIENCE = 10.0  # seconds that a pace may take to measure
NEAR = 0.05  # how far, relatively, a loss may be from that of plain float32


@dataclass(frozen=True)
class Trial:
    """How one way of taking steps did."""

    precision: str
    compiled: bool
    seconds: float  # of a step
    once: float  # seconds that the first step took longer than others
    losses: dict[str, float]  # of the first step

    def named(self) -> str:
        """Return what was tried as one says it."""
        return f"{self.precision}, compiled" if self.compiled else self.precision

    def whole(self, steps: int) -> float:
        """Return the seconds that a training of so many steps would take."""
        return self.once + steps * self.seconds

    def agrees(self, plain: Trial) -> bool:
        """Tell whether its losses are those of plain float32, as far as its precision goes."""
        return all(
            abs(self.losses[name] - value) <= NEAR * abs(value) + 0.01
            for name, value in plain.losses.items()
        )


def settled(recipe: Recipe, precision: str = "fp32", *, compiled: bool = False) -> Recipe:
    """Return the recipe with each `auto` replaced."""
    train = recipe.train
    changed = train.model_copy(
        update={
            "precision": precision if train.precision == "auto" else train.precision,
            "compile": compiled if train.compile == "auto" else train.compile,
        }
    )
    return recipe.model_copy(update={"train": changed})


def as_before(recipe: Recipe, stored: Recipe) -> Recipe:
    """Return a recipe that a run goes on with: each `auto` is what it was settled as."""
    compiled = stored.train.compile
    return settled(recipe, stored.train.precision, compiled=compiled is True)


def tryable(engine: Engine, store: Store) -> tuple[Tensor, Tensor | None]:
    """[B, C, S, S] and [B]  Return pictures for trials, and their labels: a minibatch on a GPU."""
    batch = engine.recipe.train.batch
    return as_batch(store, batch if engine.device.type == "cuda" else FEW, engine.device)


def choose(
    engine: Engine, real: Tensor, labels: Tensor | None, forward: float
) -> tuple[Recipe, str]:
    """Return the engine's recipe with each `auto` settled, and a line that says why.

    `forward` are the seconds that a picture takes forwards: what a training may take is judged by
    it, and a long one is preceded by trials on real images [B, C, H, W]. The engine is not touched.
    """
    recipe, device = engine.recipe, engine.device
    train = recipe.train
    precisions = ["fp32", "bf16"] if train.precision == "auto" else [train.precision]
    compiles = [train.compile is True]
    if train.compile == "auto" and device.type == "cuda":
        compiles = [False, True]
    if len(precisions) * len(compiles) == 1:
        return settled(recipe), ""
    # Backwards costs about twice what forwards costs.
    expected = 3 * forward * train.batch * engine.steps
    if expected < LONG:
        return settled(recipe), "Precision fp32, not compiled: too short a training to try others"
    trials, told = list[Trial](), list[str]()
    for precision, compiled in product(precisions, compiles):
        asked = settled(recipe, precision, compiled=compiled)
        try:
            trial = tried(asked, engine.steps, real, labels, device)
        except RuntimeError as error:
            if not trials or not ran_out(error):
                raise
            told.append(f"{precision} did not fit")
            continue
        if trials and not trial.agrees(trials[0]):
            told.append(f"{trial.named()} gave other losses")
            continue
        trials.append(trial)
        told.append(f"{trial.named()} {1000 * trial.seconds / len(real):.2f}")
    found = best(trials, engine.steps)
    message = f"Precision {found.named()}; milliseconds a picture in trials: {', '.join(told)}"
    return settled(recipe, found.precision, compiled=found.compiled), message


def best(trials: list[Trial], steps: int) -> Trial:
    """Return the trial that would end a training first, or the first one if they are near."""
    first = trials[0]
    fastest = min(trials, key=lambda trial: trial.whole(steps))
    return fastest if first.whole(steps) >= GAIN * fastest.whole(steps) else first


def tried(
    recipe: Recipe, steps: int, real: Tensor, labels: Tensor | None, device: torch.device
) -> Trial:
    """Take some steps with networks made for it, and time them."""
    with noticing([]):
        engine = Engine(recipe, steps, len(real), device)
        if recipe.train.compile:
            engine.compile()
        times = []
        for number in range(1 + STEPS):
            start = time.perf_counter()
            values = engine.step(number, [real], [labels])
            seen = {name: value.item() for name, value in values.items()}  # waits for the device
            times.append(time.perf_counter() - start)
            if number == 0:
                losses = seen
    usual = min(times[1:])
    return Trial(
        recipe.train.precision, recipe.train.compile is True, usual, times[0] - usual, losses
    )


def pace(engine: Engine, forward: float) -> tuple[float, int]:
    """Take a few steps on random pictures: return seconds a step, and of how many pictures it is.

    A minibatch that would take long is cut. The engine is not to be trained with any more.
    """
    recipe, device = settled(engine.recipe), engine.device
    train = recipe.train
    count = min(train.batch, max(int(PATIENCE / (3 * forward * (1 + STEPS))), train.accumulate))
    count -= count % train.accumulate
    each = recipe.batches_per_step
    chance = rng.generator(0, "pace")
    shape = (count, recipe.image.channels, recipe.image.size, recipe.image.size)
    pictures = torch.rand(shape, generator=chance).to(device)  # [B, C, S, S]
    labels = torch.zeros(count, dtype=torch.long, device=device) if recipe.image.classes else None
    engine.recipe, times = recipe, []
    for number in range(1 + STEPS):
        start = time.perf_counter()
        values = engine.step(number, [pictures] * each, [labels] * each)
        [value.item() for value in values.values()]  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]), count
