"""Precision and compiling: what `auto` becomes, and that what is compiled computes the same."""

from __future__ import annotations

import io
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from steps import batches
from torch._dynamo.exc import TorchDynamoException

import vgx
from vgx.check import trials
from vgx.check.trials import agree, as_before, choose, settled
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import noticing
from vgx.training import session

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
REAL = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def tiny(**changes):
    return vgx.load_recipe(TINY, {f"train.{name}": value for name, value in changes.items()})


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


@pytest.fixture
def with_bf16(monkeypatch):
    """A device with instructions for bfloat16, whatever this machine has."""
    monkeypatch.setattr(trials, "is_fast_in_bf16", lambda device: True)


def test_losses_agree_within_the_precision():
    plain = {"l1": 1.0, "kl": 0.001}
    assert agree({"l1": 1.04, "kl": 0.009}, plain)
    assert not agree({"l1": 1.07, "kl": 0.001}, plain)
    assert not agree({"l1": float("nan"), "kl": 0.001}, plain)


@pytest.mark.usefixtures("with_bf16")
def test_what_is_settled_needs_no_line():
    chosen, why = choose(Engine(tiny(precision="fp32"), 10), Batch(REAL))
    assert (chosen.train.precision, chosen.train.compile, why) == ("fp32", False, "")


def test_a_device_without_bf16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    chosen, why = choose(Engine(tiny(), 10), Batch(REAL))
    assert (chosen.train.precision, chosen.train.compile, why) == ("fp32", False, "")


@pytest.mark.parametrize("amx", [True, False])
def test_only_a_processor_with_amx_is_fast_in_bf16(monkeypatch, amx):
    """With the instructions of AVX512-BF16 alone a step takes longer than in float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert trials.is_fast_in_bf16(torch.device("cpu")) == amx
    assert not trials.is_fast_in_bf16(torch.device("meta"))


@pytest.mark.usefixtures("with_bf16")
def test_the_choice_leaves_no_trace_and_does_not_depend_on_time(monkeypatch):
    def clock():
        raise AssertionError("no time is measured")

    monkeypatch.setattr(trials.time, "perf_counter", clock)
    for steps in (1, 10**6):
        engine = Engine(tiny(), steps)
        before = {name: tensor.clone() for name, tensor in engine.state({}).model.items()}
        chosen, why = choose(engine, Batch(REAL))
        assert (chosen.train.precision, chosen.train.compile) == ("bf16", False)
        assert why.startswith("Precision bf16: ")
        after = engine.state({}).model
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("with_bf16")
def test_bf16_is_not_used_when_it_changes_the_losses(monkeypatch):
    monkeypatch.setattr(trials, "TOLERANCE", -1.0)
    chosen, why = choose(Engine(tiny(), 10), Batch(REAL))
    assert chosen.train.precision == "fp32"
    assert why.startswith("Precision fp32: bf16 changes a loss")


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.slow
def test_a_run_says_what_was_chosen_and_writes_it_down():
    said = io.StringIO()
    run = session.run(tiny(steps=2), console=Console(file=said, width=300))
    assert "Precision bf16: the device has" in said.getvalue()
    text = run.recipe_file.read_text()
    assert "precision: bf16" in text
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


def test_notices_before_an_error_are_kept():
    notices: list[str] = []

    def fails():
        warnings.warn("a damaged checkpoint was passed over", vgx.Notice, stacklevel=1)
        raise KeyError

    with pytest.raises(KeyError), noticing(notices):
        fails()
    assert notices == ["a damaged checkpoint was passed over"]


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("", marks=pytest.mark.chaos)])
def test_compiled_networks_train_as_plain_ones_also_under_a_penalty(monkeypatch, compiler):
    """Outside the thorough tier with all of PyTorch's compiler but the part that writes C++."""
    if compiler:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
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
