"""Monitors: trainings that go wrong are told, those that go well are not, and none is changed."""

from __future__ import annotations

import io
import json
import signal
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from steps import batches

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.engine.finite import Guard
from vgx.engine.forward import Forward
from vgx.errors import Stopped
from vgx.runs import checkpoint
from vgx.runs.directory import find
from vgx.training import monitors, session
from vgx.training.loop import Training
from vgx.training.monitors import Monitor, gradient_norms

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PLUGIN = '''
import torch
import vgx
from torch import nn


class Constant(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.picture = nn.Parameter(torch.zeros(image.channels, image.size, image.size))

    def forward(self, z):
        return self.picture.expand(len(z), -1, -1, -1)


class OnePicture(vgx.Decoder, type="one-picture"):
    """Gives the same picture whatever the latents."""

    def build(self, latent, image):
        return Constant(image)


class Loud(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.judge = nn.Conv2d(image.channels, 1, 4, 2)

    def forward(self, images):
        return vgx.Score(1e6 * self.judge(images))


class Shouting(vgx.Discriminator, type="shouting"):
    """Logits a million times too large."""

    def build(self, image, latent):
        return Loud(image)


class Masked(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.judge = nn.Conv2d(image.channels, 1, 4, 2)

    def forward(self, images):
        return vgx.Score(self.judge(nn.functional.dropout(images, 0.5, self.training)))


class Forgetful(vgx.Discriminator, type="forgetful"):
    """Leaves out half of what it sees in training."""

    def build(self, image, latent):
        return Masked(image)


@vgx.hookimpl
def register_components(register):
    register(Forgetful)
    register(OnePicture)
    register(Shouting)
'''
GAN = {"encoder": None, "losses": ["bce-adversarial"], "sampler": "prior"}
VAE = {"discriminator": None, "train.ema": None}
FAULTS = {
    "the discriminator learns 100 times as fast": (
        {
            **GAN,
            "train.optimizers.generator.lr": 2e-5,
            "train.optimizers.discriminator.lr": 2e-3,
        },
        ["the discriminator wins: its term of bce-adversarial has been below 0.05 for 200 steps"],
        "train.optimizers.discriminator.lr",
    ),
    "the posterior is held to the prior 100 times as much": (
        {**VAE, "losses": ["bce", {"type": "kl", "weight": 100}], "train.steps": 460},
        ["posterior collapse: 0 of 8 latents are active"],
        "weight: {from: 0, to: 1, steps: 5000}",
    ),
    "no weight to speak of": (
        {**VAE, "losses": [{"type": name, "weight": 1e-12} for name in ("bce", "kl")]},
        ["the encoder learns nothing", "the decoder learns nothing"],
        "weights of the losses",
    ),
    "one picture for all latents": (
        {**GAN, "decoder": "one-picture"},
        ["mode collapse: decoded latents differ 0.0% as much"],
        "diff_augment",
    ),
    "a codebook that few of its vectors are used of": (
        {
            **VAE,
            "latent": [4, 4, 4],
            "encoder": {
                "type": "vector-quantised",
                "codes": 512,
                "inner": {"type": "residual", "widths": [4, 8]},
            },
            "decoder": {"type": "residual", "widths": [8, 4]},
            "losses": ["l2", "vq"],
        },
        ["codebook collapse:"],
        "decay=0.99",
    ),
    "logits in the millions": (
        {**GAN, "losses": ["wasserstein"], "discriminator": "shouting", "train.steps": 2},
        ["the discriminator's logits reach"],
        "train.clip",
    ),
}


# These two are also told of planted numbers, below; their trainings are in the thorough tier.
BY_NUMBERS = ("the discriminator learns 100 times as fast", "one picture for all latents")


@pytest.fixture
def train(tmp_path):
    """Train the tiny recipe for long enough, and return the run and what was said."""
    file = tmp_path / "stranger.py"
    file.write_text(PLUGIN)
    registry = vgx.discover([file])

    def call(**changes):
        often = {"train.log_every": 10, "train.draw_every": 50, "train.save_every": 1000}
        recipe = vgx.load_recipe(TINY, {"train.steps": 460, **often, **changes}, registry)
        console = Console(file=io.StringIO(), width=1000)
        # The page of a run takes longer than many of these trainings.
        with mock.patch.object(session, "closing", return_value=nullcontext()):
            run = session.run(recipe, plugins=[file], registry=registry, console=console)
        return run, console.rich.file.getvalue()

    return call


@pytest.mark.bar("N2")
@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=pytest.mark.chaos if f in BY_NUMBERS else ()) for f in FAULTS]
)
def test_a_fault_is_told_at_its_step_with_advice(train, fault):
    changes, wanted, advice = FAULTS[fault]
    run, said = train(**{"train.steps": 300, **changes})
    told = [(line["step"], text) for line in run.read_log() for text in line.get("warnings", [])]
    for beginning in wanted:
        ((step, text),) = [(step, text) for step, text in told if text.startswith(beginning)]
        assert advice in text
        assert f"NOTICE: step {step}: {text}" in said
        # Whatever lasts is told when it has lasted, a single number at once.
        assert step == 1 if "logits" in text else step > 200


@pytest.mark.bar("N2")
@pytest.mark.slow
def test_a_training_that_goes_well_is_not_disturbed(train):
    run, said = train()
    assert all("warnings" not in line for line in run.read_log())
    assert "NOTICE" not in said


@pytest.mark.bar("N2")
@pytest.mark.slow
def test_looking_changes_nothing(train):
    """To the bit, also with networks that draw and count in training: dropout, statistics."""
    changes = {"train.steps": 20, "train.draw_every": 1, "train.log_every": 1}
    changes["discriminator"] = "forgetful"
    watched, _ = train(**changes)
    with (
        mock.patch.object(Monitor, "images", return_value=[]),
        mock.patch.object(Monitor, "losses", return_value=[]),
    ):
        unwatched, _ = train(**changes)
    one, two = (checkpoint.load(run)[1] for run in (watched, unwatched))
    for kind in ("model", "optimizer", "latents"):
        ours, theirs = getattr(one, kind), getattr(two, kind)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.bar("N2", control="checked in training mode, which changes bits")
def test_looking_in_training_mode_would_change_something(train):
    """The control: what draws grids and what warns, each by itself."""
    changes = {"train.steps": 3, "train.draw_every": 1}
    sound = checkpoint.load(train(**changes)[0])[1].model
    for module in ("progress", "monitors"):
        with mock.patch(f"vgx.training.{module}.evaluating", return_value=nullcontext()):
            spoilt = checkpoint.load(train(**changes)[0])[1].model
        assert any(not torch.equal(sound[name], spoilt[name]) for name in sound), module


def watch():
    return Monitor(mock.Mock(guard=mock.Mock(norms={})), mock.Mock())


def steps_warned(lines):
    seeing = watch()
    return [step for step, losses in lines if seeing.losses(step, losses)]


def test_a_fault_is_told_once_when_it_has_lasted_and_again_when_it_came_back():
    winning, level = ({"x.generator": 5.0, "x.discriminator": d} for d in (0.01, 1.3))
    lines = [(step, winning) for step in range(0, 1000, 10)]
    assert steps_warned(lines) == [200]
    lines[50] = (500, level)
    assert steps_warned(lines) == [200, 710]
    # What is only now and then so is never told.
    assert steps_warned([(s, level if s % 100 == 0 else winning) for s in range(0, 2000, 10)]) == []


@pytest.mark.parametrize(
    "losses",
    [
        {"x.generator": 5.0, "x.discriminator": 0.05},
        # A critic's difference of means is the more negative the better it is.
        {"x.generator": 5.0, "x.discriminator": -20.0},
        # A penalty has no other half.
        {"r1": 0.0},
        {"x.generator": 5.0},
    ],
)
def test_what_is_no_victory_is_not_told(losses):
    assert steps_warned([(step, losses) for step in range(0, 1000, 10)]) == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize(
    "stops", [(2, 5, 9), *(pytest.param(stop, marks=pytest.mark.chaos) for stop in ((3,), (8,)))]
)
def test_a_run_that_was_stopped_warns_at_the_same_steps(monkeypatch, tmp_path, stops):
    """Before the fault has lasted, after it was reported, and several times."""
    monkeypatch.setattr(monitors, "PATIENCE", 4)
    weightless = [{"type": name, "weight": 1e-12} for name in ("bce", "kl")]
    changes = {"train.steps": 14, "train.log_every": 1, "train.save_every": 100}
    recipe = vgx.load_recipe(TINY, {**VAE, **changes, "losses": weightless})
    quiet = Console(file=io.StringIO())
    straight = session.run(recipe, tmp_path / "straight", console=quiet)

    def stepping(training):
        terms = does(training)
        if training.done in stops and training.done not in stopped:
            stopped.append(training.done)
            signal.raise_signal(signal.SIGTERM)
        return terms

    does, stopped = Training.step, []
    monkeypatch.setattr(Training, "step", stepping)
    for number in range(len(stops) + 1):
        with pytest.raises(Stopped) if number < len(stops) else nullcontext():
            if number:
                session.resume(find(), console=quiet)
            else:
                session.run(recipe, console=quiet)
    warned, wanted = (
        [(line["step"], line["warnings"]) for line in run.read_log() if "warnings" in line]
        for run in (find(), straight)
    )
    assert warned == wanted
    # Of both networks and of the latents; the faults began at step 1.
    assert [(step, len(texts)) for step, texts in wanted if step > 1] == [(5, 3)]


def test_a_monitor_takes_up_what_a_checkpoint_holds():
    winning = {"x.generator": 5.0, "x.discriminator": 0.01}
    first = watch()
    assert first.losses(100, winning) == []
    second = watch()
    second.restore(json.loads(json.dumps(first.state())))
    assert second.losses(299, winning) == []
    assert len(second.losses(300, winning)) == 1
    third = watch()
    third.restore(json.loads(json.dumps(second.state())))
    assert third.losses(900, winning) == []  # it was told
    third.restore({})  # of a checkpoint that holds nothing
    assert third.losses(1000, winning) == []
    assert len(third.losses(1200, winning)) == 1


def test_gradient_norms_are_those_of_the_networks():
    recipe = vgx.load_recipe(TINY)
    engine = Engine(recipe, 20, 64)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kept = {}
    check = Guard.check

    def checking(self, number, values, gradients):
        kept.update(gradients)
        check(self, number, values, gradients)

    with mock.patch.object(Guard, "check", checking):
        engine.step(0, batches(real))
    wanted = {}
    for player, named in kept.items():
        assert [*named] == [*engine.players[player].trained]
        for name, gradient in named.items():
            network = name.partition(".")[0]
            wanted[network] = wanted.get(network, 0) + gradient.double().square().sum().item()
    assert gradient_norms(engine) == pytest.approx({k: v**0.5 for k, v in wanted.items()}, rel=1e-5)
    assert set(wanted) == {"encoder", "decoder", "discriminator"}


def test_the_accuracy_is_the_share_of_logits_on_the_right_side():
    """By hand: of the real logits 5 of 8 are above 0, of the fake ones 2 of 8 are below."""
    logits = {
        "real": [1.0, -1.0, 2.0, 3.0, 0.5, 0.5, -0.1, 0.0],
        "fake": [1.0, -1.0, 2.0, 3.0, 0.5, 0.5, -0.1, 0.0],
    }
    score = Forward.score

    def scoring(self, *judged, stream, **further):
        scored = score(self, *judged, stream=stream, **further)
        return vgx.Score(0 * scored.logits.mean() + torch.tensor(logits[stream])[:, None])

    engine = Engine(vgx.load_recipe(TINY), 20, 64)
    assert monitors.accuracy(engine) == {}
    with mock.patch.object(Forward, "score", scoring):
        engine.step(0, batches(torch.rand(8, 3, 16, 16)))
    assert monitors.accuracy(engine) == {"real": 5 / 8, "fake": 2 / 8}
    without = Engine(vgx.load_recipe(TINY, {**VAE, "losses": ["l1"]}), 20, 64)
    without.step(0, batches(torch.rand(8, 3, 16, 16)))
    assert monitors.accuracy(without) == {}


def test_active_latents_are_counted_as_burda_et_al_do():
    """By hand: means of 0 and d have the variance d^2 / 2; spatial latents count one by one."""
    wide, narrow = 0.15, 0.14  # variances 0.01125 and 0.0098
    mean = torch.zeros(2, 100, 1, 1)
    mean[1, :2] = wide
    mean[1, 2:] = narrow
    assert monitors.posterior_collapse(mean).startswith(
        "posterior collapse: 2 of 100 latents are active"
    )
    mean[1, 2] = wide
    assert monitors.posterior_collapse(mean) == ""


def test_pictures_are_alike_by_their_mean_distance():
    real = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    middle = real.mean(0, keepdim=True)
    assert monitors.mode_collapse(real, middle + 0.06 * (real - middle)) == ""
    said = monitors.mode_collapse(real, middle + 0.04 * (real - middle))
    assert said.startswith("mode collapse: decoded latents differ 4.0% as much")
