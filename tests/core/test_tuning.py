"""Precision and compiling: what `auto` becomes, and that what is compiled computes the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from steps import batches
from torch._dynamo.exc import TorchDynamoException

import vgx
from vgx.check import trials
from vgx.check.trials import Trial, as_before, best, choose, settled
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.data.store import open_store
from vgx.engine.engine import Engine
from vgx.errors import noticing
from vgx.training import session

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
REAL = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def tiny(**changes):
    return vgx.load_recipe(TINY, {f"train.{name}": value for name, value in changes.items()})


def trial(precision="fp32", compiled=False, seconds=1.0, once=0.0, **losses):
    return Trial(precision, compiled, seconds, once, losses)


def test_auto_is_what_a_recipe_says_when_it_says_nothing():
    train = tiny().train
    assert (train.precision, train.compile) == ("auto", "auto")
    assert (settled(tiny()).train.precision, settled(tiny()).train.compile) == ("fp32", False)


def test_what_a_recipe_says_is_not_changed():
    asked = settled(tiny(precision="bf16", compile=False), "fp32", compiled=True).train
    assert (asked.precision, asked.compile) == ("bf16", False)


def test_a_run_that_goes_on_keeps_what_was_chosen():
    stored = settled(tiny(), "bf16", compiled=True)
    assert as_before(tiny(), stored) == stored
    assert as_before(tiny(precision="fp32"), stored).train.precision == "fp32"


def test_the_trial_that_ends_first_is_taken_when_it_clearly_does():
    plain, half = trial(), trial("bf16", seconds=0.5)
    assert best([plain, half], 10) is half
    assert best([plain, trial("bf16", seconds=0.9)], 10) is plain  # 1.11 times as fast
    assert best([plain, trial("bf16", seconds=0.8)], 10).precision == "bf16"  # 1.25 times


def test_compiling_must_be_earned_back():
    plain, compiled = trial(), trial(compiled=True, seconds=0.5, once=60)
    assert best([plain, compiled], 100) is plain  # 100 s against 110 s
    assert best([plain, compiled], 1000) is compiled  # 1,000 s against 560 s


def test_other_losses_are_seen():
    plain = trial(l1=1.0, kl=0.001)
    assert trial("bf16", l1=1.04, kl=0.009).agrees(plain)
    assert not trial("bf16", l1=1.07, kl=0.001).agrees(plain)
    assert not trial("bf16", l1=float("nan"), kl=0.001).agrees(plain)


def test_a_short_training_is_not_preceded_by_trials():
    chosen, why = choose(Engine(tiny(steps=20), 20), Batch(REAL), forward=0.001)
    assert (chosen.train.precision, chosen.train.compile) == ("fp32", False)
    assert "too short" in why


def test_what_is_settled_needs_no_line():
    chosen, why = choose(Engine(tiny(precision="bf16"), 10**9), Batch(REAL), forward=1.0)
    assert (chosen.train.precision, chosen.train.compile, why) == ("bf16", False, "")


def test_a_long_training_is_preceded_by_trials_that_leave_no_trace():
    engine = Engine(tiny(), 10**6)
    before = {name: tensor.clone() for name, tensor in engine.state({}).model.items()}
    with noticing([]):
        chosen, why = choose(engine, Batch(REAL), forward=0.001)
    assert chosen.train.precision in ("fp32", "bf16")
    assert chosen.train.compile is False
    assert why.startswith(f"Precision {chosen.train.precision}; milliseconds per image in trials:")
    assert " fp32 " in why
    assert " bf16 " in why
    after = engine.state({}).model
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_way_with_other_losses_is_out(monkeypatch):
    monkeypatch.setattr(Trial, "agrees", lambda self, plain: False)
    chosen, why = choose(Engine(tiny(), 10**6), Batch(REAL), forward=0.001)
    assert chosen.train.precision == "fp32"
    assert "bf16 gave other losses" in why


def test_a_run_says_what_was_chosen_and_writes_it_down():
    said = io.StringIO()
    run = session.run(tiny(steps=2), console=Console(file=said, width=300))
    assert "Precision fp32, not compiled: too short a training" in said.getvalue()
    text = run.recipe_file.read_text()
    assert "precision: fp32" in text
    assert "compile: false" in text
    # Going on with the recipe that was begun with is no change.
    session.resume(run, tiny(steps=3), console=Console(file=io.StringIO()))


def test_what_cannot_be_compiled_is_used_as_it_is(monkeypatch):
    def never(network, *, dynamic):
        def fast(*inputs):
            raise TorchDynamoException("no compiler\nand more")

        return fast

    monkeypatch.setattr(torch, "compile", never)
    plain, engine = Engine(tiny(), 10), Engine(tiny(), 10)
    engine.forward.compile()
    notices: list[str] = []
    with noticing(notices):
        values = engine.step(0, batches(REAL))
        engine.step(1, batches(REAL))
    expected = plain.step(0, batches(REAL))
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    assert notices == [
        f"the {name} cannot be compiled, so it is not: no compiler"
        for name in ("encoder", "decoder", "discriminator")
    ]


@pytest.mark.slow
def test_compiled_networks_train_as_plain_ones_also_under_a_penalty():
    penalty = [{"type": "hinge"}, {"type": "l1"}, {"type": "kl"}, {"type": "r1"}]
    recipe = vgx.load_recipe(TINY, {"losses": penalty})
    plain, compiled = Engine(recipe, 10), Engine(recipe, 10)
    compiled.forward.compile()
    notices: list[str] = []
    with noticing(notices):
        for number in range(2):
            wanted = plain.step(number, batches(REAL))
            given = compiled.step(number, batches(REAL))
    assert notices == []
    for name, value in wanted.items():
        torch.testing.assert_close(given[name], value, rtol=1e-3, atol=1e-5)
    states = [engine.state({}).model for engine in (plain, compiled)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-2, atol=1e-3)


def test_the_images_of_a_trial_are_few_on_a_cpu():
    recipe = tiny(batch=64)
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    batch = trials.trial_batch(Engine(recipe, 10), store)
    assert len(batch) == trials.FEW
    assert batch.labels is None


@pytest.mark.parametrize("penalty", ["r1", "gradient-penalty"])
@pytest.mark.parametrize("way", ["bf16", "in pieces", "looked at later"])
def test_penalties_with_second_derivatives_work_in_every_way(penalty, way):
    losses = [{"type": "wasserstein"}, {"type": "l1"}, {"type": "kl"}, {"type": penalty}]
    changes = {"losses": losses, "discriminator.norm": "none"}
    other = {"bf16": {"train.precision": "bf16"}, "in pieces": {"train.accumulate": 2}}.get(way, {})
    plain = Engine(vgx.load_recipe(TINY, changes), 10)
    engine = Engine(vgx.load_recipe(TINY, {**changes, **other}), 10)
    engine.guard.deferred = way == "looked at later"
    wanted, given = plain.step(0, batches(REAL)), engine.step(0, batches(REAL))
    engine.guard.confirm()
    assert wanted[penalty] > 0
    # Pieces draw their own mixtures of real and fake; half precision has three digits.
    torch.testing.assert_close(given[penalty], wanted[penalty], rtol=0.1, atol=1e-4)
    moved = [engine.state({}).model, Engine(vgx.load_recipe(TINY, changes), 10).state({}).model]
    head = "discriminator.head.weight"
    assert not torch.equal(moved[0][head], moved[1][head])
