"""Whose fault it is, and parts that hide state: each is named, and what is meant is allowed."""

from __future__ import annotations

import io
import random
from collections import deque
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from steps import batches

import vgx
from vgx.check.blame import working
from vgx.check.examine import examine
from vgx.check.hidden_state import digest_of, watching_state
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.stored_latents import StoredLatents
from vgx.errors import PluginError, RecipeError
from vgx.training import session

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PLUGIN = '''
import torch
import vgx
from torch import nn


class Blend(nn.Module):
    """Remembers the batch before, in a buffer that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("before", torch.zeros(()))
        self.calls = 0

    def forward(self, images, generator):
        self.before += images.mean()
        return images


class Remembering(vgx.Augmentation, type="remembering"):
    """Keeps a sum of all that it saw."""

    def build(self, image):
        return Blend()


class Breaking(vgx.Augmentation, type="breaking"):
    """A function that gives up at the second minibatch: the first one is that of the check."""

    def build(self, image):
        whole = []

        def change(images, generator):
            whole.extend([len(images)] if len(images) == 8 else [])
            if len(whole) == 2:
                raise LookupError("no such picture")
            return images

        return change


class Encoder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.counter, self.mask, self.cache = inner, 0, torch.ones(2, 2), None

    def forward(self, images):
        self.counter += 1
        self.mask = torch.ones(2, 2)  # made again each time, and always the same
        self.cache = images.mean()
        return self.inner(images)


class Counting(vgx.Encoder, type="counting"):
    """Counts its calls, and does nothing with it."""

    inner: vgx.Encoder
    """What encodes."""

    def build(self, image, latent):
        return Encoder(self.inner.build(image, latent))


@vgx.hookimpl
def register_components(register):
    for part in (Remembering, Breaking, Counting):
        register(part)
'''


@pytest.fixture
def recipe(tmp_path):
    """The tiny recipe with the plugin, changed as asked, and the registry."""
    file = tmp_path / "stranger.py"
    file.write_text(PLUGIN)
    registry = vgx.discover([file])
    return lambda **changes: (vgx.load_recipe(TINY, changes, registry), registry)


def examined(made):
    given, registry = made
    real = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return examine(Engine(given, 20, 64), registry, Batch(real))


COUNTING = {"type": "counting", "inner": {"type": "conv", "widths": [8]}}


def test_what_a_network_counts_is_a_finding_with_its_name(recipe):
    """A tensor that is made again and is the same is none, nor is one that was not there."""
    with pytest.raises(RecipeError) as refused:
        examined(recipe(encoder=COUNTING))
    said = str(refused.value).splitlines()
    assert said[0].startswith(
        "audit: hidden-state:encoder.counter: encoder 'counting' changes its attribute counter"
    )
    assert said[1:] == ['If that is meant: allow: ["hidden-state:encoder.counter"]']


def test_a_finding_that_is_meant_is_a_note(recipe):
    findings = examined(recipe(encoder=COUNTING, allow=["hidden-state:encoder.*"]))
    (note,) = [note for note in findings.notes if "hidden-state" in note]
    assert note.startswith("Allowed by the recipe: hidden-state:encoder.counter: encoder")


def test_a_buffer_of_an_augmentation_is_hidden_state_for_no_checkpoint_holds_it(recipe):
    with pytest.raises(RecipeError) as refused:
        examined(recipe(augment=["horizontal-flip", "remembering"]))
    assert "hidden-state:augment.1.before: augmentation 'remembering'" in str(refused.value)
    assert "draw from the generator" in str(refused.value)


def test_without_looking_nothing_is_found(recipe):
    """The control: nothing else in the first look sees it."""
    with mock.patch("vgx.check.hidden_state.state_of", return_value={}):
        examined(recipe(encoder=COUNTING))


CHANGES = {
    "int": (lambda: [3], lambda held: held.append(4)),
    "long list": (lambda: list(range(5000)), lambda held: held.__setitem__(4999, 0)),
    "deque": (lambda: deque([1.0], 2), lambda held: held.append(2.0)),
    "set": (lambda: {1}, lambda held: held.add(2)),
    "dict of tensors": (
        lambda: {"a": torch.zeros(5000)},
        lambda held: held["a"].__setitem__(2500, 1),
    ),
    "half precision": (lambda: torch.zeros(3, dtype=torch.bfloat16), lambda held: held.add_(1)),
    "scalar": (lambda: torch.tensor(True), lambda held: held.logical_not_()),
    "array": (lambda: np.zeros(5000), lambda held: held.__setitem__(2500, 1)),
    "torch generator": (
        lambda: torch.Generator().manual_seed(0),
        lambda g: torch.rand(1, generator=g),
    ),
    "numpy generator": (lambda: np.random.default_rng(0), lambda g: g.random()),
    "python generator": (lambda: random.Random(0), lambda g: g.random()),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_value_that_changes_is_seen_and_one_that_is_read_is_not(kind):
    make, change = CHANGES[kind]
    held, same = make(), make()
    assert digest_of(held)
    assert digest_of(held) == digest_of(same)
    change(held)
    assert digest_of(held) != digest_of(same)


def test_what_is_no_plain_value_is_not_looked_at():
    assert digest_of(None) == digest_of(print) == digest_of(object()) == ""


def test_healthy_parts_hide_nothing(recipe):
    given, _ = recipe()
    engine = Engine(given, 20, 64)
    with watching_state(working(engine)) as found:
        engine.step(
            0, batches(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        )
    assert found == []


def test_an_augmentation_that_breaks_is_named_also_when_it_is_a_function(recipe):
    given, registry = recipe(augment=["horizontal-flip", "breaking"])
    console = Console(file=io.StringIO())
    said = r"step 1: augmentation 'breaking' of stranger.py .*LookupError: no such picture"
    with pytest.raises(PluginError, match=said):
        session.run(given, registry=registry, console=console)


def test_an_error_in_what_nobody_built_is_nobodys(recipe):
    given, registry = recipe()
    broken = mock.patch.object(StoredLatents, "add", side_effect=ZeroDivisionError)
    with broken, pytest.raises(ZeroDivisionError):
        session.run(given, registry=registry, console=Console(file=io.StringIO()))
