"""What `auto` is in `train.precision` and `train.compile`, and how long a step takes."""

from __future__ import annotations

import dataclasses
import math
import time

import torch

from vgx import rng
from vgx.check.attempt import keeping_buffers, values_of_terms
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.recipe.lengths import with_length
from vgx.recipe.model import Recipe

FEW = 4  # images on which precisions are compared
TOLERANCE = 0.05  # relative difference of a loss from that of float32
STEPS = 3  # steps whose time is measured, after a first one
MOST_SECONDS = 10.0  # in which the time of a step is measured


def settled(recipe: Recipe, precision: str = "fp32", *, compiled: bool = False) -> Recipe:
    """Return the recipe with each `auto` replaced."""
    train, chosen = recipe.train, {"precision": precision, "compile": compiled}
    auto = {name: value for name, value in chosen.items() if getattr(train, name) == "auto"}
    return recipe.model_copy(update={"train": train.model_copy(update=auto)})


def as_before(recipe: Recipe, stored: Recipe) -> Recipe:
    """Return the recipe of a resumed run, with each `auto` settled as in the stored one."""
    image, before = recipe.image, stored.image
    auto = [name for name in ("background", "range") if getattr(image, name) == "auto"]
    image = dataclasses.replace(image, **{name: getattr(before, name) for name in auto})
    recipe = recipe.model_copy(update={"image": image})
    recipe = with_length(recipe, None, stored)
    return settled(recipe, stored.train.precision, compiled=stored.train.compile is True)


def choose(engine: Engine, batch: Batch) -> tuple[Recipe, str]:
    """Return the engine's recipe with each `auto` settled, and a line that says why.

    No time is measured, so the same recipe is trained in the same way on a busy machine. The engine
    is left unchanged.
    """
    recipe = engine.recipe
    if recipe.train.precision != "auto" or not is_fast_in_bf16(engine.device):
        return settled(recipe), ""
    if not agree(first_losses(engine, batch, bf16=True), first_losses(engine, batch, bf16=False)):
        reason = f"bf16 changes a loss of the first images by more than {TOLERANCE:.0%}"
        return settled(recipe), f"Precision fp32: {reason}"
    reason = "the device has units for it, and the losses of the first images agree with fp32"
    return settled(recipe, "bf16"), f"Precision bf16: {reason}"


def is_fast_in_bf16(device: torch.device) -> bool:
    """Return whether a device trains faster in bfloat16: a GPU that has it, or a CPU with AMX.

    With AVX512-BF16 alone a step was slower than in float32 (docs/performance.md).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The public `torch.cpu.get_capabilities` is newer than the oldest PyTorch that vgx allows.
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def first_losses(engine: Engine, batch: Batch, *, bf16: bool) -> dict[str, float]:
    """Return the terms of a minibatch at the first weights, by name."""
    engine.forward.bf16 = bf16
    with keeping_buffers(engine.networks.values()), rng.ambient(engine.seed, "precision"):
        values = values_of_terms(engine, batch)
    engine.forward.bf16 = False  # until the engine is configured
    return {term.label: value.item() for term, value in values if value is not None}


def agree(losses: dict[str, float], reference: dict[str, float]) -> bool:
    """Return whether losses equal those of float32 within 5 % and 0.01; NaN never does."""
    return all(
        abs(losses.get(name, math.nan) - value) <= TOLERANCE * abs(value) + 0.01
        for name, value in reference.items()
    )


def step_time(engine: Engine, forward: float) -> tuple[float, int]:
    """Train a few steps on random images: return the seconds per step, and of how many images.

    A minibatch that would take long is cut. The engine must not be trained afterwards.
    """
    recipe, train = engine.recipe, engine.recipe.train
    most = int(MOST_SECONDS / (3 * forward * (1 + STEPS)))
    count = min(train.batch, max(most, train.accumulate))
    count -= count % train.accumulate
    shape = (count, *recipe.image.shape)
    images = torch.rand(shape, generator=rng.generator(0, "pace")).to(engine.device)  # [B, C, H, W]
    labels = torch.zeros(count, dtype=torch.long, device=engine.device)  # [B]
    batch = Batch(images, labels if recipe.image.classes else None)
    chosen, _ = choose(engine, batch.chunk(math.ceil(count / FEW))[0])
    engine.configure(chosen.train)
    times = []
    for number in range(1 + STEPS):
        start = time.perf_counter()
        losses = engine.step(number, [batch] * recipe.batches_per_step)
        for value in losses.values():
            value.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]), count
