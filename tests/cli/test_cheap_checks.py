"""A slip in a recipe is told before the first image of a data set is decoded for its store."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

import vgx
from vgx.data import store
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.training import preparing

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PATCHES = "discriminator={type: timm-patchgan, backbone: test_resnet}"
PLUGIN = '''
import torch
import vgx


class Fours(torch.nn.Module):
    """Its features are those of four images at a time, as a minibatch deviation's are."""

    def __init__(self, image):
        super().__init__()
        self.layer = torch.nn.Linear(image.pixel_values, 1)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return vgx.Score(logits + logits.reshape(min(4, len(images)), -1).square().mean())


class Grouped(vgx.Discriminator, type="grouped"):
    """A discriminator for minibatches that four divides."""

    def build(self, image, latent):
        return Fours(image)


class Ones(vgx.Dataset, type="ones"):
    """Drawn images whose labels begin with 1, as those of many tables do."""

    def build(self, image):
        return Source()


class Source:
    fingerprint = "ones"

    def __len__(self):
        return 24

    def __getitem__(self, index):
        from PIL import Image

        return Image.new("RGB", (16, 16), (index, 0, 90))

    def label(self, index):
        return 1 + index % 3


@vgx.hookimpl
def register_components(register):
    for part in (Grouped, Ones):
        register(part)
'''


@pytest.fixture
def mine(tmp_path):
    """24 images, and a plugin."""
    (tmp_path / "mine").mkdir()
    for number in range(24):
        Image.new("RGB", (20, 18), (9 * number, 80, 40)).save(tmp_path / f"mine/{number:02}.png")
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "a-file").touch()
    return tmp_path


SLIPS = [
    (["--device", "meta"], 2, "device 'meta': this machine has cpu"),
    (["--set", "image.size=98"], 2, "98 pixels"),
    (["--set", "image.size=32", "--set", PATCHES[:-1] + ", weights: none.safetensors}"], 2, "none"),
    (["--set", "discriminator={type: timm-patchgan, backbone: resnet_50}"], 2, "resnet"),
    (["--set", "trackers=[wandb]"], 2, "pip install wandb"),
    (["--set", "eval.metrics=[ssim]", "--set", "eval.every=1", "--set", "image.size=8"], 2, "11"),
    (["--set", "eval.metrics=[{type: prdc, k: 30}]", "--set", "eval.every=1"], 2, "k: 30 is too"),
    (["--set", "train.batch=25"], 4, "24 images don't fill one minibatch of 25"),
    (["--set", "train.batch=13", "--set", "eval.holdout=0.5"], 4, "12 images don't fill one"),
    (["--set", "train.batch=1", "--set", "encoder.widths=[4, 4, 4, 4]"], 2, "is too small for"),
    (["--set", "train.batch=6", "--set", "discriminator=grouped"], 2, "another train.batch"),
    (["--set", "optimizers=no"], 2, "unknown field"),
    (["--set", "losses=[l1, {type: kl, weight: {against: [kl]}}]"], 2, "against"),
    (["--set", "sampler={type: interpolate, between: 3}"], 2, "between"),
    (["--set", "dataset=ones", "--set", "image.classes=3"], 4, "image 2 has the label 3"),
]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(("slip", "code", "message"), SLIPS, ids=[" ".join(s[0]) for s in SLIPS])
def test_no_image_is_decoded_for_a_recipe_with_a_slip(
    mine, vgx_here, monkeypatch, command, slip, code, message
):
    find_spec = importlib.util.find_spec
    without = lambda name: None if name == "wandb" else find_spec(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    given = [command, TINY, "--data", "mine", "--plugin", "mine.py"]
    with mock.patch("vgx.data.store.decode_all") as decoding:
        got, _, err = vgx_here(*given, "--set", "train.batch=8", *slip)
    assert (got, message in " ".join(err.split())) == (code, True), err
    assert decoding.call_count == 0
    assert not (mine / "runs").exists()
    assert not (mine / "cache" / "images").exists()


@pytest.mark.parametrize("place", ["VGX_RUNS", "VGX_CACHE"])
def test_neither_is_one_when_nothing_can_be_written(mine, vgx_here, monkeypatch, place):
    monkeypatch.setenv(place, str(mine / "a-file" / "deeper"))
    with mock.patch("vgx.data.store.decode_all") as decoding:
        code, _, err = vgx_here("run", TINY, "--data", "mine")
    assert (code, decoding.call_count) == (5, 0)
    assert "a-file is a file, no folder" in " ".join(err.split())


def test_a_piece_that_four_does_not_divide_is_told_with_what_works(mine, vgx_here):
    given = ["check", TINY, "--data", "mine", "--plugin", "mine.py", "--set", "train.batch=12"]
    given += ["--set", "discriminator=grouped"]
    assert vgx_here(*given)[0] == 0
    code, _, err = vgx_here(*given, "--set", "train.accumulate=2")
    assert code == 2
    assert (
        "train.accumulate: a piece of 6 images fails in the discriminator 'grouped', which works"
        in err
    )
    assert "write another train.batch or train.accumulate" in err


# --- nothing is done twice -----------------------------------------------------------------------


def counted(vgx_here, *settings):
    """Run the tiny recipe; return how many engines were built, and how often one was checked."""
    with (
        mock.patch("vgx.training.preparing.Engine", wraps=preparing.Engine) as built,
        mock.patch("vgx.training.preparing.examine", wraps=preparing.examine) as checked,
        mock.patch("vgx.training.session.examine", checked),
        mock.patch("vgx.data.store.decode_all", wraps=store.decode_all) as decoded,
    ):
        few = ["--set", "train.steps=null", "--set", "train.epochs=1", "--set", "train.batch=8"]
        code, _, err = vgx_here("run", TINY, "--data", "mine", *few, *settings)
    assert code == 0, err
    return built.call_count, checked.call_count, decoded.call_count


@pytest.mark.slow
def test_a_good_recipe_is_built_and_checked_once(mine, vgx_here):
    assert counted(vgx_here) == (1, 1, 1)
    assert counted(vgx_here) == (1, 1, 0)
    assert vgx.Run(mine / "runs" / "0001-tiny").read_log()[-1]["step"] == 3


@pytest.mark.slow
def test_it_is_checked_again_when_fewer_images_are_usable_than_there_are(mine, vgx_here):
    for number in range(9):
        Image.new("L", (20, 18), number).save(mine / f"mine/{number:02}.png")
    assert counted(vgx_here, "--set", "dataset.non_rgb=skip") == (1, 2, 1)
    assert counted(vgx_here, "--set", "dataset.non_rgb=skip") == (1, 1, 0)
    for number in (1, 2):  # 15 images fill one minibatch of 8
        assert vgx.Run(mine / "runs" / f"000{number}-tiny").read_log()[-1]["step"] == 1


def test_an_engine_of_unknown_length_trains_as_one_of_the_right_length():
    changes = ["losses.0.weight={from: 0, to: 1, steps: 4}", "train.ema=0.9"]
    recipe = vgx.load_recipe(TINY, changes)
    late, right = Engine(recipe, 900, 500), Engine(recipe, 6, 12)
    late.set_length(6, 12)
    draws = torch.Generator().manual_seed(0)
    batches = [Batch(torch.rand(16, 3, 16, 16, generator=draws)) for _ in range(2)]
    for engine in (late, right):
        for number, batch in enumerate(batches):
            engine.step(number, [batch])
    one, two = (engine.state({}) for engine in (late, right))
    for group in ("model", "optimizer", "latents"):
        ours, theirs = getattr(one, group), getattr(two, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (late.steps, late.forward.steps, len(late.latents.ring)) == (6, 6, 12)
