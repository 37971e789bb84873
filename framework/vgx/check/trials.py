"""Trials of precision and compiling before a long training.

They settle `auto` in `train.precision` and `train.compile`; the recipe in the run has the result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import torch

from vgx import rng
from vgx.data.batches import Batch, as_batch
from vgx.data.store import Store
from vgx.engine.engine import Engine
from vgx.engine.memory import is_out_of_memory
from vgx.errors import noticing
from vgx.recipe.model import Recipe

LONG = 600.0  # seconds: shorter trainings are not worth a trial
# How much faster than float32 another way must be, so that the choice is the same each time.
GAIN = 1.15
FEW = 8  # images in a trial on a CPU, where the time of a step grows with its images
STEPS = 3  # of a trial, after the first
MOST_SECONDS = 10.0  # that measuring the time of a step may take
TOLERANCE = 0.05  # relative difference of a loss from that of float32


@dataclass(frozen=True)
class Trial:
    """The result of training some steps in one way."""

    precision: str
    compiled: bool
    seconds: float  # per step
    once: float  # seconds that the first step took longer than the others
    losses: dict[str, float]  # of the first step

    @property
    def name(self) -> str:
        """The way that was tried, for a message."""
        return f"{self.precision}, compiled" if self.compiled else self.precision

    def total(self, steps: int) -> float:
        """Return the seconds that a training of so many steps would take."""
        return self.once + steps * self.seconds

    def agrees(self, reference: Trial) -> bool:
        """Return whether the losses are those of float32 within the precision."""
        return all(
            abs(self.losses[name] - value) <= TOLERANCE * abs(value) + 0.01
            for name, value in reference.losses.items()
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
    """Return the recipe of a resumed run, with each `auto` settled as in the stored one."""
    compiled = stored.train.compile
    return settled(recipe, stored.train.precision, compiled=compiled is True)


def trial_batch(engine: Engine, store: Store) -> Batch:
    """Return images for trials: a minibatch on a GPU, a few on a CPU."""
    on_gpu = engine.device.type == "cuda"
    return as_batch(store, engine.recipe.train.batch if on_gpu else FEW, engine.device)


def choose(engine: Engine, batch: Batch, forward: float) -> tuple[Recipe, str]:
    """Return the engine's recipe with each `auto` settled, and a line that says why.

    `forward` is the seconds per image of a forward pass, from which the length of the training is
    estimated. Before a long training the ways are tried on the images of `batch`. The engine is not
    changed.
    """
    recipe, train = engine.recipe, engine.recipe.train
    precisions = ["fp32", "bf16"] if train.precision == "auto" else [train.precision]
    compiles = [train.compile is True]
    if train.compile == "auto" and engine.device.type == "cuda":
        compiles = [False, True]
    if len(precisions) * len(compiles) == 1:
        return settled(recipe), ""
    # The backward pass takes about twice as long as the forward pass.
    if 3 * forward * train.batch * engine.steps < LONG:
        return settled(recipe), "Precision fp32, not compiled: too short a training to try others"
    trials, results = list[Trial](), list[str]()
    for precision, compiled in product(precisions, compiles):
        candidate = settled(recipe, precision, compiled=compiled)
        try:
            trial = tried(candidate, engine.steps, batch, engine.device)
        except RuntimeError as error:
            if not trials or not is_out_of_memory(error):
                raise
            results.append(f"{precision} did not fit")
            continue
        if trials and not trial.agrees(trials[0]):
            results.append(f"{trial.name} gave other losses")
            continue
        trials.append(trial)
        results.append(f"{trial.name} {1000 * trial.seconds / len(batch):.2f}")
    fastest = best(trials, engine.steps)
    message = f"Precision {fastest.name}; milliseconds per image in trials: {', '.join(results)}"
    return settled(recipe, fastest.precision, compiled=fastest.compiled), message


def best(trials: list[Trial], steps: int) -> Trial:
    """Return the trial that would finish a training first, or the first trial when it is close."""
    first = trials[0]
    fastest = min(trials, key=lambda trial: trial.total(steps))
    return fastest if first.total(steps) >= GAIN * fastest.total(steps) else first


def tried(recipe: Recipe, steps: int, batch: Batch, device: torch.device) -> Trial:
    """Train a few steps with new networks, and measure the time."""
    with noticing([]):
        engine = Engine(recipe, steps, len(batch), device)
        engine.configure(recipe.train)
        times, first = timed_steps(engine, [batch])
    usual = min(times[1:])
    return Trial(
        recipe.train.precision, recipe.train.compile is True, usual, times[0] - usual, first
    )


def step_time(engine: Engine, forward: float) -> tuple[float, int]:
    """Train a few steps on random images: return the seconds per step, and of how many images.

    A minibatch that would take long is cut. The engine must not be trained afterwards.
    """
    recipe, train = engine.recipe, engine.recipe.train
    most = int(MOST_SECONDS / (3 * forward * (1 + STEPS)))
    count = min(train.batch, max(most, train.accumulate))
    count -= count % train.accumulate
    shape = (count, recipe.image.channels, recipe.image.size, recipe.image.size)
    images = torch.rand(shape, generator=rng.generator(0, "pace")).to(engine.device)  # [B, C, H, W]
    labels = torch.zeros(count, dtype=torch.long, device=engine.device)  # [B]
    batch = Batch(images, labels if recipe.image.classes else None)
    engine.configure(settled(recipe).train)
    times, _ = timed_steps(engine, [batch] * recipe.batches_per_step)
    return min(times[1:]), count


def timed_steps(engine: Engine, batches: list[Batch]) -> tuple[list[float], dict[str, float]]:
    """Train 1 + STEPS steps: return the seconds of each, and the losses of the first."""
    times, losses = [], []
    for number in range(1 + STEPS):
        start = time.perf_counter()
        values = engine.step(number, batches)
        # `item` waits for the device.
        losses.append({name: value.item() for name, value in values.items()})
        times.append(time.perf_counter() - start)
    return times, losses[0]
