"""The contracts of feature networks, metrics and trackers.

Letters: N images, F features.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vgx import rng
from vgx.check.attempt import read_only
from vgx.check.metrics import state_of, update
from vgx.images import grid
from vgx.parts import contract
from vgx.parts.kinds import PerImage
from vgx.recipe.model import value_names
from vgx.testing.case import ROUNDING, B, Case, built, require, unchanged, with_generator
from vgx.testing.model import small_model


def check_features(case: Case) -> None:
    """Check the features of a feature network: repeatable, fixed, and each image's own."""

    def build(part: Any) -> Any:
        return part.build(case.image)

    images, network = case.images(), built(build, case.part)
    require(isinstance(network, nn.Module), "build does not give a torch.nn.Module")
    features = unchanged("images", images, lambda: with_generator(lambda _: network(images)))
    contract.check_features(features, B)
    trained = features.requires_grad
    case.check(not trained, "its features lead to weights, which nothing may train")
    again = with_generator(lambda _: network(images), ambient=1)
    same = torch.equal(features, again)
    case.check(same, "the same images give other features the second time")
    other = built(build, case.part, 1)(images)
    case.check(torch.equal(features, other), "built twice it gives other features: fix its weights")
    near = torch.allclose(network(images[:2]), features[:2], atol=ROUNDING)
    case.check(near, "the features of an image depend on the others in its batch")


def check_metric(case: Case) -> None:
    """Check that a metric gives finite numbers that depend on the images alone.

    One that uses the model is given a small one.
    """
    count = 3 if case.part.held_out else 2  # real and generated images, and held-out ones
    sets = torch.stack([case.images(seed) for seed in range(count)])  # [sets, B, C, H, W]
    reason = case.part.why_not(case.image, B, B)
    require(isinstance(reason, str), f"why_not() gives {reason!r}, no text")
    pixels = f"{case.image.height} x {case.image.width} pixels"
    require(not reason, f"it cannot compare {B} images of {pixels}: {reason}")

    model = small_model(case.image, case.latent)
    labels = case.labels if case.image.classes else None  # [B]

    def measure(batch: int, ambient: int = 0) -> Any:
        with rng.ambient(ambient, "testing"), read_only(case.part, model.networks):
            state = state_of(case.part, case.image, model)
            for start in range(0, B, batch):
                some = slice(start, start + batch)
                own = None if labels is None else labels[some]
                update(state, [*sets[:, some]], own)
            numbers = state.compute()
            contract.check_values(numbers, value_names(case.part))
            case.check(numbers == state.compute(), "compute() gives something else the second time")
            single = state.per_image() if isinstance(state, PerImage) else {}
            contract.check_per_image(single, numbers, B)
        return numbers

    numbers = unchanged("images", sets, lambda: measure(4))
    case.check(numbers == measure(4, ambient=1), "the same images give other numbers")
    for name, value in measure(2).items():
        near = math.isclose(value, numbers[name], rel_tol=10 * ROUNDING, abs_tol=ROUNDING)
        case.check(near, f"its {name} depends on how the images are cut into batches")


def check_tracker(case: Case) -> None:
    """Check that a tracker changes nothing of the run and can be opened again."""
    shown, values = grid(case.images()), {"l1": 0.5, "kl": 2.0}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "0001-testing" / "log.jsonl"
        log.parent.mkdir()
        log.write_text("{}\n")
        for step in (0, 1):  # a resumed run opens it again
            with closing(case.part.build(log.parent)) as tracker:
                tracker.log(step, values)
                unchanged("its image", shown, partial(tracker.images, step, "samples", shown))
        others = [path for path in log.parent.iterdir() if path.name != "trackers"]
        alone = others == [log] and log.read_text() == "{}\n"
        case.check(alone, "it writes into the run's directory outside its folder trackers")
    case.check(values == {"l1": 0.5, "kl": 2.0}, "it changes the values that it is given")
