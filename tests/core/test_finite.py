"""What is not finite stops before anybody moves, and is never saved."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from rich.console import Console

import vgx
from vgx import checkpoint, training
from vgx.engine import Engine
from vgx.errors import DivergedError
from vgx.voice import Voice

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PLUGIN = """
import vgx
class Breaks(vgx.Loss, type="breaks"):
    "Breaks one player at one step in one way."
    at: int
    "The step."
    player: str
    "Whose half breaks."
    how: str
    "What it becomes."
    def _broken(self, step, value, player):
        at, who, how = self.at, self.player, self.how
        if (step.number, player) != (at, who):
            return value
        if how == "root":  # a finite loss whose gradient is none: 0 / sqrt(0)
            return value + (value - value.detach()).square().sqrt()
        if how == "huge":  # finite gradients, but their squares are not
            return value + 1e30 * (value - value.detach())
        return value * float(how)
    def generator(self, step):
        return self._broken(step, step.recon.mean(), "generator")
    def discriminator(self, step):
        return self._broken(step, step.real_score.logits.mean(), "discriminator")
@vgx.hookimpl
def register_components(register):
    register(Breaks)
"""
SAID = {
    "nan": "breaks.{player} is nan",
    "inf": "breaks.{player} is (inf|-inf)",
    "root": "the gradient of {network} is nan",
    "huge": "the norm of the {player}'s gradient is inf",
}
NETWORKS = {"generator": r"(en|de)coder\..*", "discriminator": r"discriminator\..*"}


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose loss breaks as it is told."""
    file = tmp_path / "breaks.py"
    file.write_text(PLUGIN)
    registry = vgx.discover([file])

    def made(at, player, how, **changes):
        loss = {"type": "breaks", "at": at, "player": player, "how": how}
        given = {"losses": ["l1", "bce-adversarial", loss], "train.save_every": 1, **changes}
        return vgx.load_recipe(TINY, given, registry), registry

    return made


def values_of(engine):
    """Everything that an optimizer moves, or that moves with it."""
    state = engine.state({})
    moved = {k: v for k, v in state.model.items() if "running" not in k and "batches" not in k}
    return {k: v.clone() for k, v in (moved | state.optimizer).items()}


def broken_step(recipe, at, seed=0):
    """Take steps to the one that breaks; return what it left, what was there, and the error."""
    engine = Engine(recipe, 20, 64)
    chance = torch.Generator().manual_seed(seed)
    for number in range(at):
        engine.step(number, [torch.rand(8, 3, 16, 16, generator=chance)])
    before = values_of(engine)
    with pytest.raises(DivergedError) as diverged:
        engine.step(at, [torch.rand(8, 3, 16, 16, generator=chance)])
    return values_of(engine), before, str(diverged.value)


@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("player", NETWORKS)
def test_nobody_moves_in_a_step_that_is_not_finite(recipe, player, how):
    after, before, said = broken_step(recipe(2, player, how)[0], 2)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    wanted = SAID[how].format(player=player, network=NETWORKS[player])
    assert re.fullmatch(f"step 3: {wanted}", said)


def test_without_the_look_ahead_weights_would_be_lost(recipe):
    """The negative control."""
    broken, _ = recipe(1, "generator", "root")
    engine = Engine(broken, 20, 64)
    with mock.patch.object(Engine, "_hold_finite"):
        for number in range(2):
            engine.step(number, [torch.full((8, 3, 16, 16), 0.5)])
    assert any(value.isnan().any() for value in values_of(engine).values())


def test_the_first_of_several_is_named(recipe):
    """Terms before gradients, and the generator's before the discriminator's."""
    losses = ["l1", "bce-adversarial"]
    for name, player, how in (
        ("a", "generator", "root"),
        ("b", "discriminator", "nan"),
        ("c", "discriminator", "inf"),
    ):
        losses.append({"type": "breaks", "name": name, "at": 0, "player": player, "how": how})
    broken, _ = recipe(0, "generator", "nan", losses=losses)
    assert broken_step(broken, 0)[2] == "step 1: b.discriminator is nan"


@pytest.mark.parametrize("how", ["nan", "root"])
def test_a_run_ends_with_the_step_the_term_and_the_last_good_one(recipe, how):
    broken, registry = recipe(4, "generator", how)
    said = r"step 5: .* is nan; the last good checkpoint is step-00000004; a lower learning rate"
    with pytest.raises(DivergedError, match=said) as diverged:
        training.run(broken, registry=registry, voice=Voice(Console(file=io.StringIO())))
    assert diverged.value.exit_code == 6
    run = training.find()
    for path in checkpoint.committed(run):
        state = checkpoint.load(run)[1]
        tensors = (state.model | state.optimizer | state.latents).values()
        assert all(t.isfinite().all() for t in tensors if t.is_floating_point()), path
    assert [line["step"] for line in run.read_log()] == [1, 2, 3, 4]


@pytest.mark.parametrize("place", ["encoder", "average", "optimizer", "codes"])
def test_what_is_not_finite_is_not_saved(recipe, place):
    """Wherever it comes from: here it is written into the state itself."""
    sound, registry = recipe(99, "generator", "nan")
    state_of = Engine.state

    def poisoned(self, numbers):
        state = state_of(self, numbers)
        if numbers.get("step") == 3:
            everything = state.model | state.optimizer | state.latents
            found = [t for k, t in everything.items() if place in k or place == "optimizer"]
            next(t for t in reversed(found) if t.is_floating_point()).view(-1)[0] = torch.inf
        return state

    with mock.patch.object(Engine, "state", poisoned), pytest.raises(DivergedError) as diverged:
        training.run(sound, registry=registry, voice=Voice(Console(file=io.StringIO())))
    assert "is not finite, so not saved; the last good checkpoint is step-00000002" in str(
        diverged.value
    )
    assert checkpoint.load(training.find())[1].numbers["step"] == 2


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(30))
def test_it_stops_wherever_it_happens(recipe, seed):
    chance = random.Random(seed)
    at, player, how = chance.randrange(15), chance.choice([*NETWORKS]), chance.choice([*SAID])
    changes = {"train.precision": chance.choice(["fp32", "bf16"]), "train.clip": 1.0}
    after, before, said = broken_step(recipe(at, player, how, **changes)[0], at, seed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert said.startswith(f"step {at + 1}: ")
