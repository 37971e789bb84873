"""Labels: from the data set through the store into networks, losses and samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from steps import batches, forward

import vgx
from vgx.data.batches import Batches
from vgx.data.store import open_store
from vgx.engine.engine import Engine
from vgx.errors import DataError, RecipeError
from vgx.sampling import model as sampling
from vgx.training import session as training

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
SPEC = vgx.ImageSpec(size=4, classes=3)

PARTS = '''
import torch
import vgx
from PIL import Image
from torch import nn


class Colours(vgx.Dataset, type="colours"):
    """Red, green and blue pictures, labelled so; some are left out."""

    count: int = 30

    def build(self, image):
        return Source(self.count, image.size)


class Source:
    def __init__(self, count, size):
        self.count, self.size, self.fingerprint = count, size, f"colours {count} {size}"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index % 7 == 6:
            raise vgx.Dropped("seventh")
        return Image.new("RGB", (self.size, self.size), ["red", "lime", "blue"][index % 3])

    def label(self, index):
        return index % 3


class Plain(vgx.Decoder, type="plain-conditional"):
    """A picture of the label's own plain colour, moved a little by z."""

    conditional = True

    def build(self, latent, image):
        return Network(latent, image)


class Network(nn.Module):
    def __init__(self, latent, image):
        super().__init__()
        self.colours = nn.Embedding(image.classes, 3)
        self.move = nn.Linear(latent.shape[0], 3)
        self.size = image.size

    def forward(self, z, labels):
        colour = self.colours(labels) + 0.01 * self.move(z)
        return colour[:, :, None, None].expand(-1, -1, self.size, self.size)


class Judge(vgx.Discriminator, type="conditional-judge"):
    """Scores pictures by their label's direction."""

    conditional = True

    def build(self, image, latent):
        return JudgeNetwork(image)


class JudgeNetwork(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.directions = nn.Embedding(image.classes, 3)

    def forward(self, images, labels):
        return vgx.Score((images.mean((2, 3)) * self.directions(labels)).sum(1, keepdim=True))


@vgx.hookimpl
def register_components(register):
    for part in (Colours, Plain, Judge):
        register(part)
'''


class Source:
    """Grey pictures whose label is given by a list."""

    fingerprint = "grey"

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if index == 1:
            raise vgx.Dropped("second")
        return Image.new("RGB", (4, 4), (index, index, index))

    def label(self, index):
        return self.labels[index]


def test_labels_stay_with_their_pictures():
    store = open_store(Source([2, 1, 0, 1, 2]), SPEC)
    assert store.labels.tolist() == [2, 0, 1, 2]  # picture 1 was left out
    assert store.images[:, 0, 0, 0].tolist() == [0, 2, 3, 4]
    again = open_store(Source([2, 1, 0, 1, 2]), SPEC)
    assert again.labels.tolist() == [2, 0, 1, 2]
    batches = Batches(store.images, 2, 0, torch.device("cpu"), store.labels)
    for number in range(4):
        rows = batches.rows(number)
        assert batches[number].labels.tolist() == store.labels[rows].tolist()


def test_the_content_of_a_store_is_its_labels_too():
    one = open_store(Source([2, 1, 0]), SPEC)
    other = Source([2, 1, 1])
    other.fingerprint = "grey with other labels"
    assert open_store(other, SPEC).content != one.content


def test_without_classes_nobody_asks_for_labels():
    assert open_store(Source([7, 7, 7]), vgx.ImageSpec(size=4)).labels is None


def test_a_label_beyond_the_classes_is_said():
    with pytest.raises(DataError, match=r"image 2 has the label 3; image.classes allows 0 to 2"):
        open_store(Source([0, 0, 3]), SPEC)


def test_a_data_set_without_labels_is_said():
    class Bare:
        fingerprint = "bare"

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return Image.new("RGB", (4, 4))

    with pytest.raises(
        DataError, match="image.classes: 3: the data set gives its images no labels"
    ):
        open_store(Bare(), SPEC)


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS)
    return vgx.discover([tmp_path / "parts.py"])


@pytest.fixture
def recipe(registry):
    changes = {
        "image": {"size": 16, "classes": 3}, "dataset": "colours", "augment": [],
        "decoder": "plain-conditional", "discriminator": "conditional-judge",
        "losses": ["hinge", {"type": "l1"}], "train.fakes": ["recon", "prior"],
        "train.batch": 8, "train.steps": 2, "train.ema": None, "sampler": "prior",
        "allow": ["unreached:encoder.logvar*"],
    }  # fmt: skip
    return vgx.load_recipe(TINY, changes, registry)


def told_to(engine):
    """A list that the labels told to the discriminator go to, call by call."""
    told = []
    engine.networks["discriminator"].register_forward_pre_hook(
        lambda module, inputs: told.append(inputs[1])
    )
    return told


def test_networks_and_losses_are_told_the_labels_of_their_pictures(recipe):
    engine = Engine(recipe, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])
    judged = told_to(engine)
    step = forward(engine, 0, torch.rand(8, 3, 16, 16), labels=labels)
    assert torch.equal(step.labels, labels)
    assert [told.tolist() for told in judged] == [labels.tolist(), labels.tolist() * 2]
    step.discriminator(step.recon)
    assert judged[2].tolist() == labels.tolist()
    # The decoder made each picture in its label's colour.
    colours = engine.networks["decoder"].colours.weight[labels].sigmoid()
    assert torch.allclose(step.recon.mean((2, 3)), colours, atol=0.05)
    assert torch.allclose(step.prior.mean((2, 3)), colours, atol=0.05)


def test_pieces_of_a_minibatch_keep_their_labels(recipe):
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"accumulate": 4})})
    engine = Engine(changed, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])
    judged = told_to(engine)
    engine.step(0, batches(torch.rand(8, 3, 16, 16), labels=labels))
    assert torch.cat(judged[::2]).tolist() == labels.tolist()


def test_a_run_trains_and_draws_each_class_in_turn(recipe, registry, tmp_path):
    run = training.run(recipe, plugins=[tmp_path / "parts.py"], registry=registry)
    assert json.loads((run.path / "environment.json").read_text())["data"]["kept"] == 26
    model = sampling.load(run)
    z = torch.zeros(5, 8)
    told, turned = model.decode(z, torch.tensor([2, 2, 0, 0, 1])), model.decode(z)
    colours = model.decoder.colours.weight.sigmoid()
    for images, labels in ((told, [2, 2, 0, 0, 1]), (turned, [0, 1, 2, 0, 1])):
        assert torch.allclose(images.mean((2, 3)), colours[labels], atol=0.05)
    assert np.asarray(Image.open(run.samples / "step-00000002.png")).shape[2] == 3
    assert vgx.sample(run, n=4).shape == (4, 3, 16, 16)


@pytest.mark.parametrize("kind", ["decoder", "discriminator"])
def test_a_conditional_part_needs_classes(registry, kind):
    part = {"decoder": "plain-conditional", "discriminator": "conditional-judge"}[kind]
    with pytest.raises(RecipeError, match=rf"{kind} {part} takes labels: .*image\.classes"):
        vgx.load_recipe(TINY, {kind: part}, registry)
