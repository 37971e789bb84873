"""vgx and the plain notebook loop are the same training."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from steps import batches
from torch import nn

import vgx
from vgx import rng
from vgx.engine.engine import Engine

ROOT = Path(__file__).parents[2]
STEPS, BATCH, SIZE, LATENT, WIDTHS = 5, 4, 64, 8, [8, 16, 16]


def _notebook_module():
    spec = importlib.util.spec_from_file_location(
        "reference_loop", ROOT / "benchmarks" / "reference_loop.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe():
    return vgx.load_recipe(
        ROOT / "recipes" / "anime_vaegan.yaml",
        {
            "image.size": SIZE,
            "latent": LATENT,
            "augment": [],
            "encoder.widths": WIDTHS,
            "decoder.widths": WIDTHS[::-1],
            "discriminator.backbone": "resnet10t",
            "train.steps": STEPS,
            "train.batch": BATCH,
        },
    )


@pytest.fixture(scope="module")
def plain(recipe):
    """Both trained in float64, the notebook as it stands."""
    return _train_both(recipe, torch.float64, replay=False)


def _train_both(recipe, dtype, *, replay):
    """Return losses and tensors of both after the same steps."""
    engine = Engine(recipe, STEPS, dtype=dtype)
    notebook = _notebook_module().Notebook(SIZE, LATENT, WIDTHS, "resnet10t")
    names = ("encoder", "decoder", "discriminator")
    for name in names:
        ours, theirs = engine.networks[name].state_dict(), getattr(notebook, name).to(dtype)
        assert len(ours) == len(theirs.state_dict())
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.values(), strict=True)))
    if replay:
        _judge_the_generator_without_statistics(notebook)
    data = torch.Generator().manual_seed(1)
    losses = []
    for number in range(STEPS):
        real = torch.rand(BATCH, 3, SIZE, SIZE, generator=data, dtype=dtype)
        # The noise that the engine is about to draw, by its key.
        chance = rng.generator(0, "posterior", number, 0, 0)
        eps = torch.empty(BATCH, LATENT, dtype=dtype).normal_(generator=chance)
        losses.append((engine.step(number, batches(real)), notebook.step(real, eps)))
    tensors = {
        f"{name}.{key}": (ours, theirs)
        for name in names
        for (key, ours), theirs in zip(
            engine.networks[name].state_dict().items(),
            getattr(notebook, name).state_dict().values(),
            strict=True,
        )
    }
    return losses, tensors


def _judge_the_generator_without_statistics(notebook):
    """Let D's first judgement of a step leave its BatchNorm's running statistics alone."""
    norms = [m for m in notebook.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    judged = []

    def before(module, inputs):
        for norm in norms:
            norm.momentum = 0.0 if len(judged) % 3 == 0 else 0.1
        judged.append(1)

    notebook.discriminator.register_forward_pre_hook(before)


def _gap(pair):
    ours, theirs = pair
    return (ours.double() - theirs.double()).abs().max().item()


def _statistic(name):
    return name.startswith("discriminator") and ("running" in name or "tracked" in name)


def test_float64_training_is_the_notebooks_to_1e_9(plain):
    losses, tensors = plain
    for ours, theirs in losses:
        assert ours["bce-adversarial.generator"].item() == pytest.approx(theirs["g1"], abs=1e-9)
        assert 100 * ours["l1"].item() == pytest.approx(theirs["g2"], abs=1e-9)
        assert ours["bce"].item() == pytest.approx(theirs["g3"], abs=1e-9)
        assert ours["kl"].item() == pytest.approx(theirs["g4"], abs=1e-9)
        assert ours["bce-adversarial.discriminator"].item() == pytest.approx(theirs["d"], abs=1e-9)
    gaps = {name: _gap(pair) for name, pair in tensors.items() if not _statistic(name)}
    assert max(gaps.values()) < 1e-9, max(gaps, key=gaps.get)
    # Something was learned at all: the steps moved the weights.
    assert losses[0][1]["g2"] != pytest.approx(losses[-1][1]["g2"], abs=1e-3)


def test_statistics_of_the_discriminator_lack_the_second_look_at_the_fakes(recipe, plain):
    """The notebook shows D three batches a step, one of them twice; vgx shows it two.

    D's running statistics are never read in training. They are the notebook's when its first look
    leaves them alone.
    """
    _, tensors = plain
    counts = {
        pair for name, pair in tensors.items() if "discriminator" in name and "tracked" in name
    }
    assert {(int(ours), int(theirs)) for ours, theirs in counts} == {(2 * STEPS, 3 * STEPS)}
    _, tensors = _train_both(recipe, torch.float64, replay=True)
    gaps = [_gap(pair) for name, pair in tensors.items() if "running" in name]
    assert max(gaps) < 1e-9


def test_float32_training_follows_the_notebooks(recipe):
    losses, _ = _train_both(recipe, torch.float32, replay=False)
    first, last = losses[0], losses[-1]
    assert first[0]["l1"].item() * 100 == pytest.approx(first[1]["g2"], rel=1e-5)
    assert last[0]["l1"].item() * 100 == pytest.approx(last[1]["g2"], rel=1e-2)
