"""A step that is done once more has the losses of the log and the gradients that were applied."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import vgx
from vgx.console import Console
from vgx.errors import StorageError
from vgx.runs import checkpoint, reading
from vgx.runs.directory import Run
from vgx.training import session
from vgx.training.replay import replay

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RATE = 0.125
SGD = {"type": "sgd", "lr": RATE, "momentum": 0.0}
OFTEN = {"train.steps": 5, "train.save_every": 1, "train.keep": 6, "train.log_every": 1}
OFTEN |= {"train.precision": "fp32"}
FAMILIES = {
    "vaegan": {
        "train.ema": 0.9,
        "augment": ["horizontal-flip"],
        "losses.0": {"type": "hinge", "weight": {"against": ["l1"]}},
    },
    "everything": {
        "train.order": "discriminator-first",
        "train.fakes": ["recon", "prior"],
        "train.discriminator_steps": 2,
        "train.accumulate": 2,
        "diff_augment": ["translation"],
        "losses.3": {"type": "kl", "weight": {"from": 0, "to": 1, "steps": 5}},
    },
    "gan": {"encoder": None, "losses": ["hinge", {"type": "r1", "every": 3}], "sampler": "prior"},
}
pytestmark = pytest.mark.slow


def quiet():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, tmp_path_factory):
    """A run of five steps, each with a checkpoint and a line of the log, trained by plain SGD."""
    players = {f"train.optimizers.{player}": SGD for player in ("generator", "discriminator")}
    recipe = vgx.load_recipe(TINY, {**FAMILIES[request.param], **players, **OFTEN})
    with mock.patch.object(session, "closing", return_value=contextlib.nullcontext()):
        return session.run(recipe, tmp_path_factory.mktemp("runs"), console=quiet())


def files_of(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_its_losses_are_the_logs_to_the_bit_and_nothing_is_written(run):
    before, console = files_of(run), quiet()
    result = replay(run, 4, console=console)
    assert "Opening the data set drawn-faces count=64" in console.rich.file.getvalue()
    line = next(line for line in run.read_log() if line["step"] == 4)
    assert {label: record.value for label, record in result.terms.items()} == line["losses"]
    assert (result.start, result.differs) == (3, "")
    assert files_of(run) == before


def test_a_term_that_pauses_in_the_step_equals_the_log_too(run):
    result, four, five = replay(run, 5, console=quiet()), *run.read_log()[3:5]
    lazy = four["losses"].keys() - result.terms.keys()
    assert lazy == ({"r1"} if "r1" in four["losses"] else set())  # it counts in steps 1 and 4
    assert all(four["losses"][name] == five["losses"][name] for name in lazy)
    assert result.differs == ""


def test_its_gradients_are_those_that_were_applied(run):
    """Plain SGD: new weights = old weights - rate * sum of weight * gradient of each term."""
    result = replay(run, 4, console=quiet())
    (_, old), (_, new) = (checkpoint.load_step(run, step) for step in (3, 4))
    recipe = vgx.load_recipe(run.recipe_file)
    players = {"generator": ("encoder.", "decoder."), "discriminator": ("discriminator.",)}
    for player, prefixes in players.items():
        if player == "discriminator" and recipe.train.discriminator_steps > 1:
            continue  # it is updated on each minibatch, and the last one is kept
        records = [record for record in result.terms.values() if record.player == player]
        named = {name for record in records for name in record.gradients}
        assert {name for name in named if not name.startswith(prefixes)} == set()
        assert len(named) >= 4
        for name in named:
            applied = (old.model[name] - new.model[name]) / RATE
            found = sum(r.weight * r.gradients[name] for r in records if name in r.gradients)
            assert torch.allclose(found, applied, rtol=1e-3, atol=2e-5), name


def test_the_very_first_step_begins_with_the_first_weights(run):
    for folder in run.checkpoints.iterdir():
        if folder.name == "step-00000001":
            folder.rename(run.path / "aside")
    console = quiet()
    try:
        result = replay(run, 1, console=console)
    finally:
        (run.path / "aside").rename(run.checkpoints / "step-00000001")
    assert (result.start, result.differs) == (0, "")
    assert "begins at the first step" in console.rich.file.getvalue()
    assert {label: r.value for label, r in result.terms.items()} == run.read_log()[0]["losses"]


def test_the_map_is_the_slope_of_the_mean_logit(run):
    """In float64, by the discriminator of the checkpoint as it is loaded for samples."""
    if vgx.load_recipe(run.recipe_file).diff_augment:
        return  # the discriminator sees the images moved
    result = replay(run, 4, console=quiet())
    (real,), (found,) = result.tensors["real"], result.tensors["map of real"]
    discriminator = vgx.load(run, step=3).discriminator.double().train()
    images = real.double().requires_grad_()
    logits = discriminator(images).logits
    (slopes,) = torch.autograd.grad(logits.flatten(1).mean(1).sum(), [images])
    largest = slopes.abs().max(1).values
    assert largest.max() > 1e-4
    # Rounding may put an activation on the other side of a kink.
    near = (found - largest).abs() < 1e-3 * largest.max()
    assert near.double().mean() > 0.97


def test_a_log_of_another_machine_is_told(run, tmp_path):
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    lines = copy.read_log()
    label = next(iter(lines[2]["losses"]))
    lines[2]["losses"][label] += 1e-3
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert f"step 3: {label} was" in replay(copy, 3, console=quiet()).differs
    assert replay(copy, 4, console=quiet()).differs == ""
    with pytest.raises(StorageError, match="its steps are 1 to 5, so 6 is none of them"):
        replay(copy, 6, console=quiet())


def test_the_folder_has_the_images_the_numbers_and_the_tensors(run, tmp_path):
    from vgx.cli import run_program

    assert run_program(["replay", str(run.path), "--step", "4", "--out", str(tmp_path / "x")]) == 0
    numbers = json.loads((tmp_path / "x" / "replay.json").read_text())
    assert (numbers["step"], numbers["from_step"], numbers["equals_log"]) == (4, 3, True)
    assert all(term["value"] == term["logged"] for term in numbers["terms"])
    assert all(term["gradient_norms"].keys() >= {"decoder"} for term in numbers["terms"])
    tensors = safetensors.torch.load_file(tmp_path / "x" / "tensors.safetensors")
    assert tensors["data"].shape == tensors["real"].shape == (8, 3, 16, 16)
    assert tensors["map of real"].shape == (8, 16, 16)
    assert tensors["z"].shape == (8, 8)
    assert len(numbers["images"]) == 8
    # The images of the minibatch are those of its rows, as the data set draws them.
    recipe = vgx.load_recipe(run.recipe_file)
    source = recipe.dataset.build(recipe.image)
    of_generator = numbers["rows"][0 if recipe.train.order == "generator-first" else -1]
    first = source[of_generator[0]].convert("RGB").resize((16, 16))
    pixels = torch.tensor(np.asarray(first)).permute(2, 0, 1) / 255
    assert (tensors["data"][0] - pixels).abs().mean() < 0.03  # another way of resizing
    with Image.open(tmp_path / "x" / "images.png") as grid:
        rows = sum(name in tensors for name in ("data", "recon", "prior"))
        rows += sum(name.startswith("map of") for name in tensors)
        assert grid.height >= rows * 96
    assert not (run.path / "replays").exists()
    assert reading.audit(run.path)
