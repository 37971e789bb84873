"""A run with a VampPrior: its pseudo-inputs are in the run, and in what is exported of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vgx
from vgx.errors import StorageError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
VAMP = {
    "discriminator": None, "augment": [], "train.steps": 3, "train.ema": None,
    "sampler": "vamp-prior",
    "losses": ["bce", {"type": "vamp-prior", "components": 4, "name": "v"}],
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vamp")
    return vgx.run(vgx.load_recipe(TINY, VAMP), out=folder, device="cpu", quiet=True)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return vgx.export(run, tmp_path_factory.mktemp("exported") / "model")


def test_the_model_has_what_the_checkpoint_has(run):
    (checkpoint,) = (run.path / "checkpoints").glob("*3")
    saved = load_file(checkpoint / "model.safetensors")["loss v.pixels"]
    model = vgx.load(run, "cpu")
    assert torch.equal(model.losses["v"].pixels, saved)
    assert not model.losses["v"].pixels.requires_grad


def test_an_exported_model_draws_the_same_images(run, folder):
    assert torch.equal(vgx.sample(folder, n=4, device="cpu"), vgx.sample(run, n=4, device="cpu"))
    assert {"encoder", "decoder", "loss v"} == {
        name.partition(".")[0] for name in load_file(folder / "model.safetensors")
    }


def test_it_is_measured_beside_another_sampler(run):
    samplers, metric = ["prior", "vamp-prior"], "frechet-distance"
    vgx.evaluate(run, metric, samplers=samplers, n=16, seeds=1, device="cpu", quiet=True)
    measured = json.loads((run.path / "evaluation.json").read_text())["generation"]
    assert [each["sampler"]["type"] for each in measured] == samplers
    one, other = (each["figures"][metric]["mean"] for each in measured)
    assert one != other


def test_weights_of_another_size_are_refused(run):
    recipe = run.recipe_file.read_text()
    run.recipe_file.write_text(recipe.replace("components: 4", "components: 5"))
    try:
        with pytest.raises(StorageError, match="does not fit the loss v of the recipe"):
            _ = vgx.load(run, "cpu").losses
    finally:
        run.recipe_file.write_text(recipe)
