"""Discriminators are called in those steps alone in which someone reads their scores."""

from __future__ import annotations

import io
from pathlib import Path
from unittest import mock

import pytest
import torch
from steps import batches

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.errors import DivergedError, Stopped
from vgx.runs.directory import find
from vgx.training import session
from vgx.training.loop import Training
from vgx.training.verify import verify

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RECONSTRUCTION = [{"type": "l1"}, {"type": "kl"}]
PAUSING = {"type": "bce-adversarial", "every": 3}


def engine_of(losses, **changes):
    given = {"losses": [*losses, *RECONSTRUCTION], "train.steps": 12, **changes}
    return Engine(vgx.load_recipe(TINY, given), 12, 64, dtype=torch.float64)


def trained(engine, steps):
    """What each step called: how often the discriminator, and the terms."""
    chance, calls, terms = torch.Generator().manual_seed(0), [], []
    network = engine.networks.get("discriminator")
    if network is not None:
        network.register_forward_pre_hook(lambda *_: calls.append(number))
    for number in range(steps):
        images = torch.rand(8, 3, 16, 16, generator=chance, dtype=torch.float64)
        terms.append(engine.step(number, batches(images)))
    return [calls.count(number) for number in range(steps)], terms


def weights(engine, *names):
    return [t for name in names for t in engine.networks[name].state_dict().values()]


def same(one, two):
    return all(map(torch.equal, one, two))


@pytest.mark.parametrize(
    ("losses", "changes", "calls"),
    [
        ([PAUSING], {}, [2, 0, 0, 2, 0, 0, 2]),
        ([{**PAUSING, "start": 2}], {}, [0, 0, 2, 0, 0, 2, 0]),
        ([{**PAUSING, "every": 1, "stop": 2}], {}, [2, 2, 0, 0, 0, 0, 0]),
        # A penalty calls it itself; it trains the discriminator, so it has scores as well.
        ([PAUSING, {"type": "r1", "every": 2}], {}, [3, 0, 3, 2, 3, 0, 3]),
        ([PAUSING, "feature-matching"], {}, [2] * 7),
        ([PAUSING], {"diff_augment": [{"type": "ada"}]}, [2] * 7),  # it looks at the real scores
        # One pass for each player.
        ([PAUSING], {"train.order": "discriminator-first"}, [4, 0, 0, 4, 0, 0, 4]),
    ],
    ids=["every", "start", "stop", "penalty", "features", "ada", "discriminator first"],
)
def test_a_discriminator_is_called_when_its_scores_are_read(losses, changes, calls):
    assert trained(engine_of(losses, **changes), 7)[0] == calls


def test_until_it_is_called_everything_is_as_without_a_discriminator():
    """Bit for bit, and the discriminator, with its BatchNorm, as it began."""
    late = engine_of([{**PAUSING, "start": 4}])
    before = [tensor.clone() for tensor in weights(late, "discriminator")]
    never = engine_of([], discriminator=None)
    assert trained(late, 4)[0] == [0, 0, 0, 0]
    trained(never, 4)
    names = ("encoder", "decoder")
    assert same(weights(late, *names), weights(never, *names))
    assert same(weights(late, "discriminator"), before)


@pytest.mark.parametrize("fakes", [["recon"], ["recon", "prior"]], ids=" ".join)
def test_lazy_scores_are_the_same(fakes):
    losses, changes = [PAUSING, "feature-matching"], {"train.fakes": fakes}
    lazy, eager = (engine_of(losses, **changes) for _ in range(2))
    terms = trained(lazy, 5)[1]
    with mock.patch.object(Engine, "lazy", return_value=False):
        assert terms == trained(eager, 5)[1]
    names = ("encoder", "decoder", "discriminator")
    assert same(weights(lazy, *names), weights(eager, *names))


def quiet():
    return Console(file=io.StringIO(), width=1000)


def accuracies(run):
    return [line.get("accuracy") for line in run.read_log()]


def norms(run):
    return [line["grad_norm"] for line in run.read_log()]


@pytest.mark.usefixtures("no_pages")
def test_the_log_has_the_last_accuracy_and_norm_also_after_a_resume(tmp_path):
    """Of steps that are numbered from 0, the scores are read in 1, 4 and 7."""
    changes = {"losses.0": {**PAUSING, "start": 1}, "train.steps": 8, "train.save_every": 3}
    recipe = vgx.load_recipe(TINY, changes)
    whole = session.run(recipe, tmp_path / "whole", console=quiet())
    step = Training.step

    def stepping(self):
        terms = step(self)
        self.stop = 15 if self.done == 6 else 0
        return terms

    with mock.patch.object(Training, "step", stepping), pytest.raises(Stopped):
        session.run(recipe, tmp_path / "parts", console=quiet())
    parts = session.resume(find(out=tmp_path / "parts"), console=quiet())
    of_whole = accuracies(whole)
    assert accuracies(parts) == of_whole
    assert norms(parts) == norms(whole)
    assert ["discriminator" in each for each in norms(whole)] == [False] + [True] * 7
    assert of_whole[0] is None
    assert of_whole[1] == of_whole[2] == of_whole[3]
    assert of_whole[4] == of_whole[5] == of_whole[6]
    assert {*of_whole[1]} == {"real", "fake"}
    assert verify(parts, console=quiet()) == (7, 8)


@pytest.mark.usefixtures("no_pages")
def test_a_rollback_goes_back_to_the_accuracy_of_its_checkpoint():
    """Scores are read in steps 1 and 4; step 5 fails once, and the run goes back to step 3."""
    changes = {"losses.0": {**PAUSING, "start": 1}, "train.steps": 6, "train.save_every": 3}
    recipe = vgx.load_recipe(TINY, {**changes, "train.on_nonfinite": "rollback"})
    step, failed = Training.step, []

    def stepping(self):
        if self.done == 5 and not failed:
            failed.append(self.done)
            raise DivergedError("step 6: it fails once", 5)
        return step(self)

    with mock.patch.object(Training, "step", stepping):
        run = session.run(recipe, console=quiet())
    assert failed == [5]
    of_run = accuracies(run)
    assert of_run[1] == of_run[2] == of_run[3]
    of_judge = [each.get("discriminator") for each in norms(run)]
    assert of_judge[1] == of_judge[2] == of_judge[3] != of_judge[4]
    assert of_run[3] != of_run[4] == of_run[5]
