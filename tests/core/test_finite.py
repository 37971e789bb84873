"""What is not finite stops before anybody moves, and is never saved."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
import signal
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from steps import TIMES, batches

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.engine.finite import Guard
from vgx.errors import DivergedError, Stopped
from vgx.runs import checkpoint
from vgx.runs.directory import find
from vgx.training import session
from vgx.training.loop import Training
from vgx.training.verify import verify

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PLUGIN = """
import vgx
from vgx import rng
class Breaks(vgx.Loss, type="breaks"):
    "Breaks one player at one step in one way."
    at: int
    "The step."
    player: str
    "Whose half breaks."
    how: str
    "What it becomes."
    times: int = 99
    "In how many attempts: each rollback makes another one, with other draws."
    def _broken(self, step, value, player):
        at, who, how, times = self.at, self.player, self.how, self.times
        if (step.number, player) != (at, who):
            return value
        seeds = [0, *(rng.key(0, "rollback", n) for n in (1, 2, 3))][:times]
        drawn = step.rng("luck").initial_seed()
        if drawn not in [rng.key(seed, "loss luck", at, 0, 0) for seed in seeds]:
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

    def made(at, player, how, times=99, **changes):
        loss = {"type": "breaks", "at": at, "player": player, "how": how, "times": times}
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
        engine.step(number, batches(torch.rand(8, 3, 16, 16, generator=chance)))
    before = values_of(engine)
    with pytest.raises(DivergedError) as diverged:
        engine.step(at, batches(torch.rand(8, 3, 16, 16, generator=chance)))
    return values_of(engine), before, str(diverged.value)


@pytest.mark.bar("N1")
@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("player", NETWORKS)
def test_nobody_moves_in_a_step_that_is_not_finite(recipe, player, how):
    after, before, said = broken_step(recipe(2, player, how)[0], 2)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    wanted = SAID[how].format(player=player, network=NETWORKS[player])
    assert re.fullmatch(f"step 3: {wanted}", said)


@pytest.mark.bar("N1", control="without the check the weights become NaN")
def test_without_the_look_ahead_weights_would_be_lost(recipe):
    """The negative control."""
    broken, _ = recipe(1, "generator", "root")
    engine = Engine(broken, 20, 64)
    with mock.patch.object(Guard, "check"):
        for number in range(2):
            engine.step(number, batches(torch.full((8, 3, 16, 16), 0.5)))
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


@pytest.mark.bar("N1")
@pytest.mark.parametrize("how", ["nan", "root"])
def test_a_run_ends_with_the_step_the_term_and_the_last_good_one(recipe, how):
    broken, registry = recipe(4, "generator", how)
    said = r"step 5: .* is nan; the last good checkpoint is step-00000004; a lower learning rate"
    with pytest.raises(DivergedError, match=said) as diverged:
        session.run(broken, registry=registry, console=Console(file=io.StringIO()))
    assert diverged.value.exit_code == 6
    run = find()
    assert len(checkpoint.steps(run)) >= 2
    for step in checkpoint.steps(run):
        path, state = checkpoint.load_step(run, step)
        assert state.numbers["step"] == step
        tensors = (state.model | state.optimizer | state.latents).values()
        assert all(t.isfinite().all() for t in tensors if t.is_floating_point()), path
    assert [line["step"] for line in run.read_log()] == [1, 2, 3, 4]


@pytest.mark.bar("N1")
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
        session.run(sound, registry=registry, console=Console(file=io.StringIO()))
    assert "is not finite, so it is not saved; the last good checkpoint is step-00000002" in str(
        diverged.value
    )
    assert checkpoint.load(find())[1].numbers["step"] == 2


# --- rollback ----------------------------------------------------------------------------------

ROLLBACK = {"train.on_nonfinite": "rollback", "train.save_every": 3, "train.steps": 12}


def quiet():
    return Console(file=io.StringIO(), width=1000)


def end_of(run):
    """All tensors of the last checkpoint, and the log without what it took."""
    state = checkpoint.load(run)[1]
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in run.read_log()]
    return {**state.model, **state.optimizer, **state.latents}, lines


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def stopping_at(step, start):
    """Begin or go on, and have SIGTERM come when for the first time so many steps are done."""
    does = Training.step

    def stepping(self):
        values = does(self)
        if self.done == step:
            signal.raise_signal(signal.SIGTERM)
        return values

    with mock.patch.object(Training, "step", stepping), pytest.raises(Stopped):
        start()


@pytest.mark.bar("N1")
def test_a_run_goes_back_and_tries_other_draws_at_half_the_rates(recipe):
    broken, registry = recipe(7, "generator", "nan", 1, **ROLLBACK)
    console = quiet()
    run = session.run(broken, registry=registry, console=console)
    lines = run.read_log()
    assert [line["step"] for line in lines] == list(range(1, 13))
    said = (
        "rollback 1 of 3: step 8: breaks.generator is nan; back at step 6 with other random "
        "numbers and 0.5 times the learning rates"
    )
    assert [line.get("warnings", []) for line in lines] == [[]] * 6 + [[said]] + [[]] * 5
    assert f"NOTICE: step 6: {said}" in console.rich.file.getvalue()
    assert [line["rates"]["generator"] for line in lines] == [3e-4] * 6 + [1.5e-4] * 6
    assert checkpoint.load(run)[1].numbers["rollbacks"] == 1


@pytest.mark.slow
def test_grids_of_steps_that_are_done_again_go(recipe):
    """What is drawn when a checkpoint is saved: step 8 breaks once, so step 7 is left behind."""
    broken, registry = recipe(7, "generator", "nan", 1, **ROLLBACK, **{"train.draw_every": 1})
    save, seen = checkpoint.save, []

    def saving(run, state, *given):
        newest = max((int(file.stem[-8:]) for file in run.samples.glob("*.png")), default=0)
        seen.append((state.numbers["rollbacks"], newest))
        return save(run, state, *given)

    with mock.patch.object(checkpoint, "save", saving):
        session.run(broken, registry=registry, console=quiet())
    assert seen == [(0, 0), (0, 3), (0, 6), (1, 6), (1, 9), (1, 12)]


@pytest.mark.slow
def test_what_the_step_was_made_of_is_kept(recipe):
    broken, registry = recipe(7, "generator", "nan", 1, **ROLLBACK)
    rows = []
    does = Training.step

    def stepping(self):
        rows.append([self.batches.rows(number).tolist() for number in self.numbers])
        return does(self)

    with mock.patch.object(Training, "step", stepping):
        run = session.run(broken, registry=registry, console=quiet())
    (line,) = map(json.loads, (run.path / "nonfinite.jsonl").read_text().splitlines())
    before, after = rows[7], rows[9]  # seven steps, the one that broke, one before it again
    wanted = {"step": 8, "what": "step 8: breaks.generator is nan", "rollbacks": 0}
    assert line == {**wanted, "pictures": before}
    assert before != after
    assert len(before[0]) == 8


@pytest.mark.slow
def test_a_run_that_never_breaks_is_the_same_with_and_without(recipe):
    one, registry = recipe(99, "generator", "nan", **ROLLBACK)
    two, _ = recipe(99, "generator", "nan", **{**ROLLBACK, "train.on_nonfinite": "stop"})
    ends = [end_of(session.run(r, registry=registry, console=quiet())) for r in (one, two)]
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stops",
    [(7,), (6, 7, 9), *(pytest.param(stop, marks=pytest.mark.chaos) for stop in ((2,), (8,)))],
)
def test_a_run_that_went_back_and_was_stopped_ends_alike(recipe, stops, tmp_path):
    """Before the step that breaks, in the attempt that breaks, and after it."""
    broken, registry = recipe(7, "generator", "nan", 2, **ROLLBACK)
    straight = session.run(broken, tmp_path / "straight", registry=registry, console=quiet())
    assert checkpoint.load(straight)[1].numbers["rollbacks"] == 2
    plugin = [tmp_path / "breaks.py"]
    start = lambda: session.run(broken, plugins=plugin, registry=registry, console=quiet())  # noqa: E731
    for step in stops:
        stopping_at(step, start)
        start = lambda: session.resume(console=quiet())  # noqa: E731
    start()
    (wanted, wanted_log), (found, log) = end_of(straight), end_of(find())
    assert same(wanted, found)
    assert [line["losses"] for line in log] == [line["losses"] for line in wanted_log]
    assert [line["rates"] for line in log] == [line["rates"] for line in wanted_log]
    warned, wanted = ([line.get("warnings") for line in each] for each in (log, wanted_log))
    assert warned == wanted
    assert [len(texts) for texts in wanted if texts] == [2]  # of both rollbacks, at one step


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.bar("N1", control="rollbacks forgotten when the run is resumed")
def test_rollbacks_that_were_forgotten_would_be_missed(recipe, tmp_path, monkeypatch):
    """The control of that: the count is what a resume needs."""
    broken, registry = recipe(4, "generator", "nan", 1, **ROLLBACK)
    straight = session.run(broken, tmp_path / "straight", registry=registry, console=quiet())
    plugin = [tmp_path / "breaks.py"]
    stopping_at(8, lambda: session.run(broken, plugins=plugin, registry=registry, console=quiet()))
    load = checkpoint.load

    def forgetful(run, before=None):
        path, state = load(run, before)
        return path, dataclasses.replace(state, numbers={**state.numbers, "rollbacks": 0})

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "load", forgetful)
        session.resume(console=quiet())
    assert not same(end_of(straight)[0], end_of(find())[0])


@pytest.mark.bar("N1")
@pytest.mark.parametrize("at", [0, 1, 7])
@pytest.mark.slow
def test_what_breaks_again_and_again_ends_after_three_rollbacks(recipe, at):
    """Also before the first checkpoint: the state before step 1 is saved for that."""
    broken, registry = recipe(at, "discriminator", "root", **ROLLBACK)
    said = rf"step {at + 1}: the gradient of .* is nan, after 3 rollbacks; the last good checkpoint"
    with pytest.raises(DivergedError, match=said) as diverged:
        session.run(broken, registry=registry, console=quiet())
    assert diverged.value.exit_code == 6
    run = find()
    lines = (run.path / "nonfinite.jsonl").read_text().splitlines()
    assert [json.loads(line)["rollbacks"] for line in lines] == [0, 1, 2, 3]
    assert checkpoint.load(run)[1].numbers["step"] == at // 3 * 3
    assert [line["step"] for line in run.read_log()] == list(range(1, at + 1))


@pytest.mark.bar("N1", control="a rollback to the same random numbers: it fails again")
@pytest.mark.slow
def test_with_the_same_draws_it_would_break_again(recipe):
    """The control: a rollback that changes nothing helps nobody."""
    broken, registry = recipe(7, "generator", "nan", 1, **ROLLBACK)

    with (
        mock.patch.object(Engine, "seed", 0),
        pytest.raises(DivergedError, match="after 3 rollbacks"),
    ):
        session.run(broken, registry=registry, console=quiet())


@pytest.mark.slow
def test_a_state_that_is_not_saved_is_gone_back_from_too(recipe):
    sound, registry = recipe(99, "generator", "nan", **ROLLBACK)
    state_of, spoilt = Engine.state, []

    def poisoned(self, numbers):
        state = state_of(self, numbers)
        if numbers.get("step") == 6 and not spoilt:
            spoilt.append(state.model["encoder.mu.bias"].clone())
            state.model["encoder.mu.bias"][0] = torch.inf
        return state

    with mock.patch.object(Engine, "state", poisoned):
        run = session.run(sound, registry=registry, console=quiet())
    assert spoilt
    lines = run.read_log()
    assert [line["step"] for line in lines] == list(range(1, 13))
    said = "step 6: encoder.mu.bias is not finite, so it is not saved; back at step 3"
    assert said in lines[3]["warnings"][0]


@pytest.mark.slow
def test_a_run_that_went_back_repeats(recipe, tmp_path):
    broken, registry = recipe(10, "generator", "nan", 1, **ROLLBACK)
    plugin = [tmp_path / "breaks.py"]
    run = session.run(broken, plugins=plugin, registry=registry, console=quiet())
    assert verify(run, console=quiet()) == (10, 12)


@pytest.mark.slow
def test_a_run_that_stopped_can_be_told_to_go_back(recipe, tmp_path):
    changes = {**ROLLBACK, "train.on_nonfinite": "stop"}
    broken, registry = recipe(7, "generator", "nan", 1, **changes)
    plugin = [tmp_path / "breaks.py"]
    with pytest.raises(DivergedError, match="train.on_nonfinite=rollback may help"):
        session.run(broken, plugins=plugin, registry=registry, console=quiet())
    other, _ = recipe(7, "generator", "nan", 1, **ROLLBACK)
    run = session.resume(recipe=other, console=quiet())
    assert checkpoint.load(run)[1].numbers["step"] == 12


@pytest.mark.bar("N1")
@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(30))
def test_it_stops_wherever_it_happens(recipe, seed):
    chance = random.Random(seed)
    at, player, how = chance.randrange(15), chance.choice([*NETWORKS]), chance.choice([*SAID])
    changes = {"train.precision": chance.choice(["fp32", "bf16"]), "train.clip": 1.0}
    after, before, said = broken_step(recipe(at, player, how, **changes)[0], at, seed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert said.startswith(f"step {at + 1}: ")


# --- looked at later, as on a GPU ---------------------------------------------------------------


def pictures():
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def deferred():
    engine = Engine(vgx.load_recipe(TINY), 20)
    engine.guard.deferred = True
    return engine


def test_looking_later_changes_no_bit():
    now, later = Engine(vgx.load_recipe(TINY), 20), deferred()
    for number in range(3):
        for engine in (now, later):
            engine.step(number, batches(pictures()))
    later.guard.confirm()
    a, b = now.state({}), later.state({})
    for these, those in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert all(torch.equal(these[name], those[name]) for name in these)


def test_nothing_moves_after_a_step_that_was_not_finite():
    engine = deferred()
    engine.step(0, batches(pictures()))
    before = {
        name: tensor.clone()
        for name, tensor in (engine.state({}).model | engine.state({}).optimizer).items()
        # What BatchNorm counts moves forwards, and the average only follows the weights.
        if not any(word in name for word in ("running", "batches", "average"))
    }
    broken = pictures()
    broken[0, 0, 0, 0] = torch.inf
    engine.step(1, batches(broken))
    engine.step(2, batches(pictures()))
    after = engine.state({}).model | engine.state({}).optimizer
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(DivergedError, match=r"^step 2: .* is (nan|inf)$") as told:
        engine.guard.confirm()
    assert told.value.step == 1
    engine.guard.confirm()  # once is enough


def test_what_is_unread_is_read_before_it_grows(monkeypatch):
    monkeypatch.setattr("vgx.engine.finite.UNREAD", 3)
    engine = deferred()
    broken = torch.full_like(pictures(), torch.nan)
    engine.step(0, batches(broken))
    engine.step(1, batches(pictures()))
    with pytest.raises(DivergedError, match="^step 1: "):
        engine.step(2, batches(pictures()))


# --- stopped between a step and the next look at it -----------------------------------------------


class Stopping(Console):
    """Sends a signal when a number of steps is done: after the loop has looked at what is due."""

    def __init__(self, at):
        super().__init__(io.StringIO(), width=1000)
        self.at = at

    @contextmanager
    def progress(self, label, total, done=0, unit="", images=1):
        def advance(more, values):
            nonlocal done
            done += more
            if done == self.at:
                signal.raise_signal(signal.SIGTERM)

        yield advance


@pytest.fixture
def always_deferred(monkeypatch):
    """Guards that read values later, as on a GPU."""
    init = Guard.__init__
    monkeypatch.setattr(
        Guard, "__init__", lambda self, device, **_: init(self, device, deferred=True)
    )


SELDOM = {"train.log_every": 100, "train.draw_every": 100, "train.save_every": 3, "train.steps": 12}


@pytest.mark.bar("N1")
@pytest.mark.usefixtures("always_deferred")
def test_a_step_that_was_not_finite_is_named_when_a_signal_follows_it(recipe):
    """With the run, the last checkpoint and advice; nothing of the step is saved."""
    broken, registry = recipe(6, "generator", "nan", **SELDOM)
    said = "0001-.*: step 7: breaks.generator is nan; the last good checkpoint is step-00000006; .*"
    with pytest.raises(DivergedError, match=said):
        session.run(broken, registry=registry, console=Stopping(7))
    assert checkpoint.load(find())[1].numbers["step"] == 6


@pytest.mark.bar("N1")
@pytest.mark.usefixtures("always_deferred")
@pytest.mark.slow
def test_a_signal_after_a_step_that_was_not_finite_rolls_it_back(recipe):
    changes = {**SELDOM, "train.on_nonfinite": "rollback"}
    broken, registry = recipe(6, "generator", "nan", 1, **changes)
    with pytest.raises(Stopped, match="stopped at step 6 and saved"):
        session.run(broken, registry=registry, console=Stopping(7))
    run = find()
    assert checkpoint.load(run)[1].numbers["rollbacks"] == 1
    (line,) = map(json.loads, (run.path / "nonfinite.jsonl").read_text().splitlines())
    assert line["step"] == 7
