"""The loop: what is written, when, and that stopping in the middle changes nothing."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from PIL import Image

import vgx
from vgx.check.trials import settled
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.errors import DataError, DivergedError, HubError, RecipeError, Stopped, StorageError
from vgx.runs import checkpoint, reading
from vgx.runs.directory import Run, find
from vgx.second import fitting
from vgx.training import loop, resuming, session
from vgx.training.preparing import length_of

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
STEPS = 20


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))


def tiny(changes=None):
    return vgx.load_recipe(TINY, changes or {})


def console():
    return Console(file=io.StringIO())


def trained(changes=None):
    return session.run(tiny(changes), console=console())


@contextmanager
def signal_in_step(number, kind):
    """Send this process a signal in the middle of one step."""
    step = Engine.step

    def stepping(self, at, *batch):
        if at == number:
            signal.raise_signal(kind)
        return step(self, at, *batch)

    with mock.patch.object(Engine, "step", stepping), pytest.raises(Stopped) as stopped:
        yield
    assert stopped.value.exit_code == 128 + kind


def assert_same_end(one, two):
    (_, a), (_, b) = checkpoint.load(one), checkpoint.load(two)
    for kind in ("model", "optimizer", "latents"):
        ours, theirs = getattr(a, kind), getattr(b, kind)
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), (kind, name)


FAMILIES = {
    "vaegan": {},
    "gan": {
        "encoder": None,
        "losses": ["hinge"],
        "sampler": "prior",
        "train.discriminator_steps": 2,
    },
    "vae": {"discriminator": None, "losses": ["bce", "kl"], "train.ema": None},
    "two-fakes": {"train.order": "discriminator-first", "train.fakes": ["recon", "prior"]},
}


@pytest.mark.parametrize(
    "family",
    # tests/core/test_resume.py stops the others.
    [
        pytest.param(changes, id=name, marks=() if name == "two-fakes" else pytest.mark.chaos)
        for name, changes in FAMILIES.items()
    ],
)
def test_three_stops_within_one_epoch_change_nothing(family):
    recipe = tiny(family)
    straight = session.run(recipe, console=console())
    with signal_in_step(0, signal.SIGINT):
        session.run(recipe, console=console())
    for number in (2, 3):
        with signal_in_step(number, signal.SIGTERM):
            session.resume(console=console())
        (_, state) = checkpoint.load(find())
        assert state.numbers["step"] == number + 1
    stopped = session.resume(console=console())
    assert stopped.path != straight.path
    assert_same_end(straight, stopped)
    logs = [
        [(line["step"], line["losses"], line["images"]) for line in run.read_log()]
        for run in (straight, stopped)
    ]
    assert logs[0] == logs[1]
    assert [step for step, _, _ in logs[0]] == list(range(1, STEPS + 1))


def test_a_run_repeats_itself_whatever_it_logs_draws_and_saves():
    changes = {"train.log_every": 7, "train.draw_every": 1, "train.save_every": 3}
    one, two = trained(), trained(changes)
    assert_same_end(one, two)
    assert [line["step"] for line in two.read_log()] == [1, 7, 14, 20]


def test_a_term_that_counts_every_few_steps_is_logged_with_its_last_value():
    step, computed = Engine.step, {}

    def stepping(self, number, batches):
        terms = step(self, number, batches)
        computed.update({number + 1: terms["kl"].item()} if "kl" in terms else {})
        return terms

    with mock.patch.object(Engine, "step", stepping):
        run = trained({"losses.3": {"type": "kl", "every": 3, "start": 2, "stop": 10}})
    assert [*computed] == [3, 6, 9]
    logged = {line["step"]: line["losses"].get("kl") for line in run.read_log()}
    last = {3: 3, 4: 3, 5: 3, 6: 6, 7: 6, 8: 6, 9: 9, 10: 9}  # the term ends before step 11
    assert logged == {done: computed.get(last.get(done)) for done in range(1, 21)}


def test_another_seed_is_another_run():
    (_, a), (_, b) = (checkpoint.load(trained({"train.seed": seed})) for seed in (0, 1))
    assert not torch.equal(a.model["decoder.0.weight"], b.model["decoder.0.weight"])


def test_a_line_of_the_log_says_what_the_contract_says():
    ticks = itertools.count()
    with mock.patch("vgx.training.loop.time") as clock:  # each step takes half a second
        clock.perf_counter.side_effect = lambda: next(ticks) / 2
        run = trained()
    line = json.loads(run.log_file.read_text().splitlines()[-1])
    assert list(line) == [
        "step", "epoch", "images", "seconds", "losses", "rates", "grad_norm", "accuracy",
        "images_per_second",
    ]  # fmt: skip
    assert [each["images_per_second"] for each in run.read_log()] == [16.0] * len(run.read_log())
    assert list(line["grad_norm"]) == ["encoder", "decoder", "discriminator"]
    # 64 pictures, 8 in a minibatch: 20 steps are two and a half epochs.
    assert (line["step"], line["epoch"], line["images"]) == (20, 2.5, 160)
    assert line["rates"] == {"generator": 3e-4, "discriminator": 5e-5}
    assert all(math.isfinite(value) for value in line["losses"].values())


def test_training_lowers_the_reconstruction_loss():
    run = trained({"train.steps": 60, "train.optimizers.generator.lr": 2e-3, "augment": []})
    losses = [line["losses"]["l1"] for line in run.read_log()]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_pictures_are_drawn_at_their_steps():
    run = trained()
    names = sorted(path.name for path in run.samples.glob("*.png"))
    steps = ("00000001", "00000002", "00000005", "00000010", "00000020")
    assert names == [
        *(f"prior-{step}.png" for step in steps),
        *(f"recon-{step}.png" for step in steps),
        *(f"step-{step}.png" for step in steps),
    ]
    # 8x8 pictures of 16 pixels with 2 between and around them.
    with Image.open(run.samples / "step-00000010.png") as grid:
        assert grid.size == (8 * 18 + 2, 8 * 18 + 2)
    with Image.open(run.samples / "recon-00000010.png") as grid:
        assert grid.size == (8 * 18 + 2, 4 * 18 + 2)


def drawn(run, kind="step"):
    return [int(path.stem[-8:]) for path in sorted(run.samples.glob(f"{kind}-????????.png"))]


def test_a_run_that_is_stopped_draws_there_and_forgets_it_when_it_goes_on():
    """Other pictures stay, also those that the recipe as it is now would not have drawn."""
    with signal_in_step(6, signal.SIGTERM):
        trained({"train.draw_every": 3})
    run = find()
    assert drawn(run) == [1, 2, 3, 5, 6, 7]
    for kind in ("recon", "prior"):
        assert len(list(run.samples.glob(f"{kind}-*.png"))) == 6
    seldom = vgx.load_recipe(run.recipe_file, {"train.draw_every": 100})
    session.resume(run, seldom, console=console())
    assert drawn(run) == [1, 2, 3, 5, 6, 10, 20]
    for kind in ("recon", "prior"):
        assert len(list(run.samples.glob(f"{kind}-*.png"))) == 7


@pytest.mark.parametrize(
    ("done", "exhausted", "settings"),
    [
        (20, "", "--set train.steps=40"),
        (8, "psnr is no better", "--set eval.patience=null"),
        (20, "psnr is no better", "--set train.steps=40 --set eval.patience=null"),
    ],
)
def test_a_run_that_is_done_is_told_every_setting_that_it_needs_to_go_on(
    tmp_path, done, exhausted, settings
):
    ended = {"how": "done", "step": done, "of": 20}
    (tmp_path / "ended.json").write_text(json.dumps(ended))
    training = SimpleNamespace(
        run=Run(tmp_path),
        done=done,
        engine=SimpleNamespace(steps=20),
        exhausted=exhausted,
        recipe=vgx.load_recipe(TINY, {"train.steps": 20}),
    )
    said = resuming.nothing_left(training)
    assert said.endswith(f"To go on: vgx run --resume {tmp_path} {settings}")


def test_a_run_that_goes_on_from_an_earlier_step_has_no_grid_of_a_later_one():
    """Its newest checkpoint is gone, as if it had been killed before that; nothing is trained."""
    run = trained({"train.steps": 6, "train.draw_every": 2, "train.save_every": 4})
    assert drawn(run) == [1, 2, 4, 5, 6]
    shutil.rmtree(run.checkpoints / "step-00000006")
    others = ("prior-00000006-seed-0.png", "step-00000006.webp", "look-00000006.png")
    for name in others:  # what the training does not draw
        (run.samples / name).write_bytes(b"")
    gone = StorageError("the disk is gone")
    with mock.patch.object(fitting, "train", side_effect=gone), pytest.raises(StorageError):
        session.resume(run, console=console())
    assert drawn(run) == drawn(run, "recon") == drawn(run, "prior") == [1, 2, 4]
    assert all((run.samples / name).exists() for name in others)


def test_a_picture_that_was_due_where_the_run_was_stopped_stays():
    with signal_in_step(8, signal.SIGTERM):
        trained({"train.draw_every": 3})
    run = find()
    seldom = vgx.load_recipe(run.recipe_file, {"train.draw_every": 100})
    session.resume(run, seldom, console=console())
    assert drawn(run) == [1, 2, 3, 5, 6, 9, 10, 20]


def test_a_run_that_is_done_keeps_its_last_picture_whoever_resumes_it():
    run = trained({"train.steps": 8})
    session.resume(run, console=console())
    assert drawn(run) == [1, 2, 5, 8]
    session.resume(run, vgx.load_recipe(run.recipe_file, {"train.steps": 9}), console=console())
    assert drawn(run) == [1, 2, 5, 9]


def test_checkpoints_are_kept_as_the_recipe_says():
    run = trained({"train.keep": 2, "train.save_every": 4})
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["step-00000016", "step-00000020"]


def test_epochs_are_counted_in_minibatches():
    run = trained({"train.epochs": 2, "train.save_every": 100})
    assert run.read_log()[-1]["step"] == 16
    assert run.read_log()[-1]["epoch"] == 2


@pytest.mark.parametrize(("epochs", "minibatches", "steps"), [(1, 3, 3), (2, 3, 6), (3, 5, 5)])
def test_epochs_are_rounded_up_to_whole_steps(epochs, minibatches, steps):
    """Of 8 minibatches an epoch: 8 / 3, 16 / 3 and 24 / 5 steps; latents of an epoch are stored."""
    asked = {"train.epochs": epochs, "train.discriminator_steps": minibatches}
    assert length_of(tiny(asked), 8) == (steps, 64)


def test_a_run_can_be_trained_longer_and_is_then_the_longer_run():
    straight = trained({"train.steps": 24})
    short = trained()
    longer = vgx.load_recipe(short.recipe_file, {"train.steps": 24})
    session.resume(short, longer, console=console())
    assert_same_end(straight, short)
    assert vgx.load_recipe(short.recipe_file) == longer


def other_recipe_is_refused(folder):
    run = trained({"train.steps": 2})
    changes = {"losses.1.weight": 10, "train.batch": 4, "train.steps": 4}
    other = vgx.load_recipe(run.recipe_file, changes)
    before = run.recipe_file.read_text()
    with pytest.raises(RecipeError) as refused:
        session.resume(run, other, console=console())
    assert "losses.1.weight: 100.0 -> 10" in str(refused.value)
    assert "train.batch: 8 -> 4" in str(refused.value)
    assert run.recipe_file.read_text() == before


def other_images_are_refused(folder):
    """A folder whose images are exchanged between the run and its resume."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(16):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(pictures / f"{number}.png")
    changes = {"dataset": {"type": "image-folder", "path": str(pictures)}, "train.steps": 2}
    run = trained(changes)
    for number in range(16):
        Image.new("RGB", (17, 16), (0, 0, number)).save(pictures / f"{number}.png")
    longer = vgx.load_recipe(run.recipe_file, {"train.steps": 4})
    with pytest.raises(RecipeError, match="the images are not those of the run"):
        session.resume(run, longer, console=console())


def other_versions_are_said(folder):
    """Another version of PyTorch, and a plugin that is gone."""
    run = trained({"train.steps": 2})
    environment = run.environment()
    environment["packages"]["torch"] = "0.4.1"
    environment["plugins"].append({"name": "gone", "version": "7"})
    (run.path / "environment.json").write_text(json.dumps(environment))
    text = io.StringIO()
    longer = vgx.load_recipe(run.recipe_file, {"train.steps": 4})
    session.resume(run, longer, console=Console(file=text))
    said = " ".join(text.getvalue().split())
    assert "NOTICE: the run began with another environment" in said
    assert "torch 0.4.1 -> 2." in said
    assert "plugin gone 7 -> none" in said


class Equal(str):
    """A checksum that equals every other."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, _):
        return True

    def __ne__(self, _):
        return False


def open_as_before(*arguments, read=session.read_images):
    store = read(*arguments)
    return dataclasses.replace(store, content=Equal(store.content))


# What must be noticed when a run is resumed; and the function that notices it, with one that finds
# no difference.
DIFFERENCES = {
    "recipe": (other_recipe_is_refused, "resuming.differences", lambda *_: {}),
    "images": (other_images_are_refused, "read_images", open_as_before),
    "versions": (other_versions_are_said, "environment.changes", lambda *_: []),
}


@pytest.mark.bar("R9")
@pytest.mark.parametrize("what", DIFFERENCES)
def test_what_differs_from_the_run_is_refused_or_said(tmp_path, what):
    DIFFERENCES[what][0](tmp_path)


@pytest.mark.bar("R9", control="each comparison left out in turn")
def test_a_comparison_that_is_left_out_would_be_seen(tmp_path, monkeypatch, record_property):
    ended = []
    for what, (check, name, careless) in DIFFERENCES.items():
        folder = tmp_path / what
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setenv("VGX_RUNS", str(folder / "runs"))
            patch.setattr(f"vgx.training.session.{name}", careless)
            with pytest.raises((AssertionError, pytest.fail.Exception)):
                check(folder)
            ended.append(find().read_log()[-1]["step"])
    assert ended == [4, 4, 4]
    record_property("seen", "3 of 3 train on in silence")


def test_the_environment_tells_what_the_run_was_made_with():
    run = trained()
    environment = run.environment()
    assert environment["vgx"] == vgx.__version__
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert environment["data"]["kept"] == 64
    assert environment["data"]["dataset"] == "drawn-faces"
    assert environment["notices"] == []
    assert {"builtin"} <= {plugin["name"] for plugin in environment["plugins"]}
    stored = vgx.load_recipe(run.recipe_file)
    assert stored == settled(tiny(), stored.train.precision)


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing_of_it(tmp_path):
    plugin = tmp_path / "breaks.py"
    plugin.write_text(
        "import vgx\n"
        "class Breaks(vgx.Loss, type='breaks'):\n"
        "    'Is no number in the fourth step and the next ones.'\n"
        "    def generator(self, step):\n"
        "        return step.recon.mean() * (float('nan') if 3 <= step.number < 10 else 1)\n"
        "@vgx.hookimpl\n"
        "def register_components(register):\n"
        "    register(Breaks)\n"
    )
    registry = vgx.discover([plugin])
    changes = {"losses": ["l1", "breaks"], "train.save_every": 1}
    recipe = vgx.load_recipe(TINY, {**changes, "discriminator": None}, registry)
    said = "step 4: breaks is nan; the last good checkpoint is step-00000003; .*train.clip"
    with pytest.raises(DivergedError, match=said) as diverged:
        session.run(recipe, plugins=[plugin], registry=registry, console=console())
    assert diverged.value.exit_code == 6
    (path, state) = checkpoint.load(find())
    assert path.name == "step-00000003"
    assert all(tensor.isfinite().all() for tensor in state.model.values())


def test_images_that_fail_while_it_draws_lose_no_step(tmp_path, monkeypatch):
    """As those of a stream, when the hub falls silent; the folder's name is no text."""
    drawn = loop._draw

    def draw(training, console):
        if training.done == 4:
            raise HubError("the hub is silent")
        drawn(training, console)

    monkeypatch.setattr(loop, "_draw", draw)
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "bad\udcff"))
    with pytest.raises(HubError, match="silent; stopped at step 4 and saved; go on with: vgx res"):
        trained({"train.steps": 6, "train.draw_every": 4, "train.save_every": 100})
    run = find()
    assert checkpoint.load(run)[0].name == "step-00000004"
    assert "stopped at step 4" in reading.ended(run.path)["message"]
    monkeypatch.setattr(loop, "_draw", drawn)
    session.resume(run, console=console())
    assert reading.ended(run.path)["how"] == "done"


def test_fewer_pictures_than_a_minibatch_are_said_before_a_run_is_made(tmp_path):
    with pytest.raises(DataError, match="5 images don't fill one minibatch"):
        trained({"dataset.count": 5})
    assert not (tmp_path / "runs").exists()


def test_the_fallback_is_told_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    dataset = {"type": "huggingface", "path": "nobody/nothing"}
    fallback = {"type": "drawn-faces", "count": 64}
    said = io.StringIO()
    recipe = tiny({"dataset": {**dataset, "fallback": fallback}})
    run = session.run(recipe, console=Console(file=said))
    (notice,) = run.environment()["notices"]
    assert "nobody/nothing" in notice
    assert "drawn-faces" in notice
    assert f"NOTICE: {notice}" in said.getvalue()
    first = run.read_log()[0]
    assert (first["step"], first["notices"]) == (0, [notice])
