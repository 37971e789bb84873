"""Parts that break in the middle of a training: they are named, and what was saved stays whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

import vgx
from vgx.check import examine as check
from vgx.engine import losses, stored_latents
from vgx.errors import DataError, DivergedError, PluginError, RecipeError
from vgx.runs import checkpoint
from vgx.runs.directory import find

PLUGIN = '''
"""Parts that work for six steps."""

import sys
from typing import Literal

import torch
from pydantic import PrivateAttr
from torch import nn

import vgx


class Faulty(vgx.Loss, type="faulty"):
    """The mean of the reconstruction, until the step at which it breaks."""

    fault: str
    """What happens then."""
    at: int = 7
    """The step, counted from 1."""

    def generator(self, step):
        value = step.recon.mean()
        fault = self.fault
        if step.number + 1 != self.at:
            return value
        if fault == "raises":
            raise KeyError("no such thing")
        if fault == "leaves":
            sys.exit(0)
        return {
            "nan": value * float("nan"),
            "infinite": value / 0,
            "vector": step.recon.mean((1, 2, 3)),
            "number": 0.5,
            "text": "0.5",
            "elsewhere": torch.zeros((), device="meta"),
            "gradient": (step.recon - step.recon.detach()).sqrt().mean(),
        }[fault]


class Forgetful(vgx.Loss, type="forgetful"):
    """The mean of the reconstruction, by a counter that no checkpoint holds."""

    where: str
    """Where it keeps its count."""

    _count: int = PrivateAttr(default=0)

    def build(self, image, latent):
        return {"private": self, "object": Plain(), "module": Module(), "list": Listing(),
                "buffer": Buffered(), "none": Lazy()}[self.where]

    def generator(self, step):
        self._count += 1
        return step.recon.mean() * self._count


class Plain:
    def __init__(self):
        self.count = 0

    def generator(self, step):
        self.count += 1
        return step.recon.mean() * self.count


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.count = 0

    def generator(self, step):
        self.count += 1
        return step.recon.mean() * self.weight


class Listing(Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def generator(self, step):
        self.seen.append(step.number)
        return step.recon.mean() * self.weight


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("count", torch.zeros(()))

    def generator(self, step):
        self.count += 1
        return step.recon.mean() * self.weight


class Lazy(Buffered):
    def __init__(self):
        super().__init__()
        self.table = None

    def generator(self, step):
        self.table = torch.ones(3)
        self.count += 1
        return step.recon.mean() * self.weight


class Broken(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, torch.nn.Buffer(torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        if self.calls > 20:
            raise IndexError("out of patches")
        return vgx.Score(self.inner(images))


class Judge(vgx.Discriminator, type="tired"):
    """A discriminator that gives up after twenty calls."""

    def build(self, image, latent):
        return Broken(nn.Conv2d(image.channels, 1, 4, 2))


class Spoilt(vgx.Dataset, type="spoilt"):
    """Sixty-four grey pictures, of which number 40 is none."""

    def build(self, image):
        return Pictures()


class Locked(vgx.Dataset, type="locked"):
    """Pictures that nobody can open."""

    def build(self, image):
        raise RuntimeError("no key")


class Pictures:
    fingerprint = "spoilt"

    def __len__(self):
        return 64

    def __getitem__(self, index):
        from PIL import Image

        if index == 40:
            raise ArithmeticError("the disk said no")
        return Image.new("RGB", (16, 16), (index, index, index))


@vgx.hookimpl
def register_components(register):
    for part in (Faulty, Forgetful, Judge, Spoilt, Locked):
        register(part)
'''
RECIPE = """\
name: x
image: {size: 16}
latent: 4
dataset: {type: drawn-faces, count: 16}
encoder: {type: conv, widths: [8]}
decoder: {type: conv-transpose, widths: [8]}
losses: [{type: l1}, kl]
sampler: prior
train: {steps: 20, batch: 4, save_every: 5, log_every: 1}
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train with the plugin and return what was raised."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "stranger.py"
    file.write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(RECIPE)
    registry = vgx.discover([file])

    def call(*overrides):
        recipe = vgx.load_recipe("r.yaml", overrides, registry)
        return vgx.run(recipe, plugins=[file], registry=registry)

    return call


def last_checkpoint():
    path, state = checkpoint.load(find())
    assert all(tensor.isfinite().all() for tensor in state.model.values())
    return path.name


def faulty(name):
    return f"losses=[l1, kl, {{type: faulty, fault: {name}}}]"


@pytest.mark.bar("X1")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raises", "KeyError: 'no such thing'"),
        ("leaves", "SystemExit: 0"),
        ("vector", "its generator's term is of shape (4,)"),
        ("number", "its generator's term is a float"),
        ("text", "its generator's term is a str"),
        ("elsewhere", "its generator's term is on meta, while the run is on cpu"),
    ],
)
def test_a_loss_that_breaks_at_step_7_is_named(train, name, expected):
    with pytest.raises(PluginError) as caught:
        train(faulty(name))
    message = str(caught.value)
    assert "step 7: loss 'faulty' of stranger.py " in message
    assert expected in message
    assert last_checkpoint() == "step-00000005"


@pytest.mark.parametrize("name", ["nan", "infinite", "gradient"])
def test_a_loss_that_is_no_number_at_step_7_is_named(train, name):
    with pytest.raises(DivergedError, match=r"step 7: .*(faulty|gradient)"):
        train(faulty(name))
    assert last_checkpoint() == "step-00000005"


@pytest.mark.bar("X1", control="without the check of values no part is named")
def test_without_the_look_at_values_the_wrong_part_would_be_blamed(train, monkeypatch):
    """The control: the engine then stumbles itself, and nobody is named."""
    unchecked = lambda term, step: getattr(term.module, term.player)(step)  # noqa: E731
    monkeypatch.setattr(losses.Term, "value", unchecked)
    with pytest.raises((AttributeError, RuntimeError, TypeError)):
        train(faulty("text"))


@pytest.mark.bar("X1")
def test_a_network_that_breaks_is_named_too(train):
    with pytest.raises(PluginError, match="discriminator 'tired' of stranger.py .*out of patches"):
        train("discriminator=tired", "losses=[l1, kl, hinge]")


def test_a_loss_that_breaks_at_once_leaves_no_run(train, tmp_path):
    with pytest.raises(PluginError, match="loss 'faulty' of stranger.py"):
        train("losses=[l1, {type: faulty, fault: raises, at: 1}]")
    assert not (tmp_path / "runs").exists()


@pytest.mark.bar("X1")
def test_a_data_set_that_raises_names_the_picture_and_leaves_no_run(train, tmp_path):
    with pytest.raises(DataError, match="image 40.*the disk said no"):
        train("dataset=spoilt")
    assert not (tmp_path / "runs").exists()


def test_a_data_set_that_cannot_be_opened_is_named_by_a_check_too(train, tmp_path, capsys):
    from vgx.cli import run_program

    with pytest.raises(PluginError, match="dataset 'locked' of stranger.py .*no key"):
        train("dataset=locked")
    assert (
        run_program(["check", "r.yaml", "--plugin", "stranger.py", "--set", "dataset=locked"]) == 3
    )
    assert "dataset 'locked' of stranger.py" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.bar("X3")
@pytest.mark.parametrize("where", ["private", "object", "module", "list"])
def test_state_that_no_checkpoint_holds_is_refused_before_the_first_step(train, where, tmp_path):
    expected = r"audit: hidden-state:forgetful\..*: loss 'forgetful' changes its attribute"
    with pytest.raises(RecipeError, match=expected) as caught:
        train(f"losses=[l1, kl, {{type: forgetful, where: {where}}}]")
    assert "buffer" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.bar("X3", control="without the check the hidden state is used in training")
def test_without_the_look_hidden_state_would_be_trained_with(train, monkeypatch):
    """The control: it is then taken for randomness, and once that is allowed it trains."""
    monkeypatch.setattr(check, "watching_state", lambda _: contextlib.nullcontext([]))
    forgetful = "losses=[l1, kl, {type: forgetful, where: object}]"
    with pytest.raises(RecipeError, match="random:forgetful"):
        train(forgetful, "train.steps=1")
    train(forgetful, "train.steps=1", "allow=['random:forgetful']")


@pytest.mark.bar("X3")
@pytest.mark.parametrize("where", ["buffer", "none"])
def test_buffers_and_what_is_filled_in_once_are_no_hidden_state(train, where):
    run = train(f"losses=[l1, kl, {{type: forgetful, where: {where}}}]", "train.steps=6")
    _, state = checkpoint.load(run)
    assert state.model["loss forgetful.count"] == 6  # those of the first look are not counted


def test_an_own_error_of_vgx_keeps_its_traceback(train, monkeypatch):
    """Nobody is blamed for what no part did."""
    monkeypatch.setattr(stored_latents.StoredLatents, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()


def test_memory_that_runs_out_is_said_with_what_helps(train, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(stored_latents.StoredLatents, "add", out_of_memory)
    with pytest.raises(vgx.VgxError, match="step 1: not enough memory; about 3") as error:
        train()
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("encoder.widths=[100000000]", "encoder: training it takes more than"),
        ("latent=9999999", "training it takes more than"),
        ("decoder.widths=[1000000000000000000]", "decoder: training it takes more than"),
    ],
)
def test_networks_that_fit_no_machine_are_refused_before_they_are_made(train, change, expected):
    with pytest.raises(vgx.VgxError, match=expected) as error:
        train(change, "image.size=64")
    assert error.value.exit_code == 2
    assert not Path("runs").exists()
