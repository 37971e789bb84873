"""A fork goes on from a checkpoint: unchanged it equals its parent to the bit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

import vgx
from vgx.console import Console
from vgx.errors import PluginError, RecipeError, StorageError
from vgx.runs import checkpoint, reading
from vgx.runs.directory import Run
from vgx.second import fitting
from vgx.training import fork as forking
from vgx.training import session
from vgx.training.fork import fork
from vgx.training.replay import replay

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
SETTINGS = (
    "train.steps=12", "train.save_every=4", "train.log_every=2", "train.draw_every=100",
    "eval.every=4", "eval.metrics=[psnr]", "eval.best=psnr",
)  # fmt: skip
pytestmark = pytest.mark.slow


def quiet():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture(scope="module")
def parent(tmp_path_factory, program_in):
    """A run of twelve steps with checkpoints of the steps 4, 8 and 12: (program, directory)."""
    program = program_in(tmp_path_factory.mktemp("parent"))
    recipe = vgx.load_recipe(TINY, SETTINGS)
    with mock.patch.object(session, "closing", return_value=contextlib.nullcontext()):
        run = session.run(recipe, program.folder / "runs", console=quiet())
    return program, run.path


@pytest.fixture
def copy(parent, tmp_path):
    """A copy of the parent that a test may change."""
    return Run(shutil.copytree(parent[1], tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _no_page():
    """The page of a run takes longer than these trainings; that of a process is made."""
    with mock.patch.object(forking, "closing", return_value=contextlib.nullcontext()):
        yield


def recipe_of(run, **changes):
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    return vgx.load_recipe(run.recipe_file, settings)


def files_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def log_of(run):
    """The log without what a clock has measured."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    timed = {"seconds", "images_per_second"}
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def numbers_of(folder):
    numbers = json.loads((folder / "state.json").read_text())
    del numbers["seconds"]
    return numbers


def test_an_unchanged_fork_equals_its_parent_to_the_bit(parent):
    program, run = parent
    before = files_of(run)
    done = program("fork", "1", "--at", "4")
    new = program.folder / "runs" / "0002-tiny"
    assert f"Run {new} goes on from step 4 of {run}" in done.stdout
    assert "Changed" not in done.stdout
    for step in (4, 8, 12):  # weights, averages, optimizers, stored latents; then plain numbers
        one, two = (folder / "checkpoints" / f"step-{step:08}" for folder in (run, new))
        for name in ("model", "optimizer", "latents"):
            file = f"{name}.safetensors"
            assert (one / file).read_bytes() == (two / file).read_bytes(), (step, name)
        assert numbers_of(one) == numbers_of(two)
    assert log_of(run) == log_of(new)
    assert (run / "recipe.yaml").read_bytes() == (new / "recipe.yaml").read_bytes()
    weights = run / "checkpoints" / "step-00000004" / "model.safetensors"
    assert reading.environment(new)["parent"] == {
        "run": "0001-tiny",
        "step": 4,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "networks": ["encoder", "decoder", "discriminator"],
        "how": "fork",
    }
    grids = {f"{kind}-{step:08}.png" for kind in ("step", "prior", "recon") for step in (1, 2)}
    assert grids <= {path.name for path in (new / "samples").iterdir()}
    assert files_of(run) == before  # the parent was only read


def test_which_steps_can_be_forked_from_is_said(copy, vgx_here):
    code, _, said = vgx_here("fork", copy.path)
    assert code == 2
    assert "copy: its checkpoints are of the steps 4, 8, 12" in said
    code, _, said = vgx_here("fork", copy.path, "--at", "5")
    assert code == 5
    assert "no checkpoint of step 5; its checkpoints are of the steps 4, 8, 12" in said


def test_images_of_an_earlier_step_are_drawn_and_measured(copy, vgx_here):
    """The run that ended at step 8 is the reference: the files of its one checkpoint."""
    shorter = Run(shutil.copytree(copy.path, copy.path.parent / "shorter"))
    shutil.rmtree(shorter.checkpoints / "step-00000012")
    code, out, err = vgx_here("sample", copy.path, "--step", 8, "-n", 4)
    assert code == 0, err
    assert "weighted-mix-00000008-seed-0.png" in out
    assert torch.equal(vgx.sample(copy, n=4, step=8), vgx.sample(shorter, n=4))
    assert not torch.equal(vgx.sample(copy, n=4, step=8), vgx.sample(copy, n=4))
    few = ("--metrics", "psnr", "-n", 8, "--seeds", 1)
    assert vgx_here("eval", copy.path, "--step", 4, *few)[0] == 0
    figures = reading.evaluation(copy.path)
    assert (figures["step"], figures["checkpoint"]) == (4, "step")
    code, _, err = vgx_here("sample", copy.path, "--step", 7)
    assert code == 5
    assert "no checkpoint of step 7; its checkpoints are of the steps 4, 8, 12" in err
    for command in ("sample", "eval"):
        assert vgx_here(command, copy.path, "--step", 8, "--best")[0] == 2


def test_a_parent_may_remove_the_checkpoint_once_it_is_loaded(copy, monkeypatch):
    """As one that is being trained does. Nothing is trained here: the training is refused."""
    folder = copy.checkpoints / "step-00000004"
    sum_of_weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    load, gone = checkpoint.load_step, StorageError("the disk is gone")

    def and_removed(run, step):
        loaded = load(run, step)
        shutil.rmtree(loaded[0])
        return loaded

    monkeypatch.setattr(checkpoint, "load_step", and_removed)
    with mock.patch.object(fitting, "train", side_effect=gone), pytest.raises(StorageError) as why:
        fork(copy, 4, console=quiet())
    assert why.value is gone
    (new,) = Path(vgx.runs.directory.runs_dir()).iterdir()
    assert (new / "recipe.yaml").is_file()
    assert reading.environment(new)["parent"]["sha256"] == sum_of_weights


def test_a_fork_that_is_killed_at_once_goes_on_and_ends_like_its_parent(copy):
    gone = StorageError("the disk is gone")
    with mock.patch.object(fitting, "train", side_effect=gone), pytest.raises(StorageError):
        fork(copy, 8, console=quiet())
    (new,) = (Run(path) for path in Path(vgx.runs.directory.runs_dir()).iterdir())
    session.resume(new, console=quiet())
    (_, mine), (_, theirs) = (checkpoint.load_step(run, 12) for run in (new, copy))
    for part in ("model", "optimizer", "latents"):
        ours, others = getattr(mine, part), getattr(theirs, part)
        assert ours.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in ours.items())
    assert log_of(new.path) == log_of(copy.path)


def test_what_changes_is_trained_from_then_on(copy):
    """The generator's rate is next to 0, so its weights stay; a loss goes and another one comes;
    the average ends, and the discriminator gets another optimizer."""
    changes = {
        "train__optimizers__generator__lr": 1e-30,
        "train__optimizers__discriminator__type": "adamw",
        "train__ema": None,
        "train__steps": 10,
        "losses": ["bce-adversarial", {"type": "l1", "weight": 7}, "kl", "lecam"],
        "name": "changed",
    }
    console = quiet()
    new = fork(copy, 8, recipe_of(copy, **changes), console=console)
    said = console.rich.file.getvalue()
    assert new.path.name == "0001-changed"
    assert "Changed: train.optimizers.generator.lr: 0.0003 -> 1e-30" in said
    assert "Changed: losses.1.weight: 100.0 -> 7.0" in said
    assert "loss lecam: begins anew, at step 8" in said
    assert "average: is left behind, at step 8" in said
    assert "optimizer of the discriminator: begins anew, at step 8" in said
    (_, start), (_, end) = (checkpoint.load_step(run, step) for run, step in ((copy, 8), (new, 10)))
    for name, tensor in start.model.items():
        network = name.partition(".")[0]
        if network == "average":
            assert name not in end.model
        elif not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            moved = (tensor - end.model[name]).abs().max()
            assert (moved > 1e-6) if network == "discriminator" else (moved < 1e-20), name
    counted = {
        name.partition("/")[0]: tensor.item()
        for name, tensor in end.optimizer.items()
        if name.endswith("/step")
    }
    assert counted == {"generator": 10, "discriminator": 2}  # the second one began at step 8
    terms = {line["step"]: {*line["losses"]} for line in new.read_log() if line.get("losses")}
    assert "bce" in terms[8]
    assert "bce" not in terms[10]
    assert reading.audit(new.path)["losses"].keys() == terms[10]


def test_a_frozen_discriminator_is_trained_from_then_on(copy):
    frozen = {
        "train__freeze": ["discriminator"],
        "train__steps": 10,
        "allow": ["dead:*", "fresh:*"],
    }
    first = fork(copy, 8, recipe_of(copy, **frozen), console=quiet())
    console = quiet()
    thawed = recipe_of(first, train__freeze=[], train__steps=12)
    second = fork(first, 10, thawed, console=console)
    assert "discriminator" not in first.read_log()[-1]["grad_norm"]
    assert "discriminator" in second.read_log()[-1]["grad_norm"]
    said = console.rich.file.getvalue()
    assert "optimizer of the discriminator: begins anew, at step 10" in said
    (_, start), (_, end) = checkpoint.load_step(second, 10), checkpoint.load_step(second, 12)
    name = next(name for name in start.model if name.startswith("discriminator."))
    assert not torch.equal(start.model[name], end.model[name])


def test_a_fork_takes_as_many_minibatches_in_a_step_as_its_parent(copy):
    """Of a frozen discriminator no updates are counted, so to thaw it would change the number."""
    steps = {"train__discriminator_steps": 2}
    frozen = recipe_of(copy, **steps, train__freeze=["discriminator"])
    thawed = recipe_of(copy, **steps)
    with pytest.raises(RecipeError, match="minibatches of a step: 1 -> 2"):
        forking._changes(copy, frozen, thawed)


def test_a_step_before_the_fork_is_replayed_in_the_parent(copy):
    """A fork has the log and the best checkpoint of its parent, but not its recipe."""
    about = json.loads((copy.path / "environment.json").read_text())
    about["parent"] = {
        "run": "0003-old", "step": 8, "sha256": "0" * 64, "networks": ["decoder"], "how": "fork",
    }  # fmt: skip
    (copy.path / "environment.json").write_text(json.dumps(about))
    for step in (5, 8):
        with pytest.raises(StorageError, match=f"from 0003-old at step 8, so step {step} was done"):
            replay(copy, step, console=quiet())
    assert replay(copy, 9, console=quiet()).start == 8


def test_an_average_that_is_new_begins_with_the_weights_of_now(copy):
    none = copy.path.parent / "none"
    shutil.copytree(copy.path, none)
    first = fork(Run(none), 8, recipe_of(copy, train__ema=None), console=quiet())
    changes = {"train__ema": 0.5, "train__steps": 14}
    second = fork(first, 12, recipe_of(first, **changes), console=quiet())
    (_, state) = checkpoint.load_step(second, 12)
    averaged = checkpoint.under(state.model, "average.module")
    assert averaged
    assert all(torch.equal(tensor, state.model[name]) for name, tensor in averaged.items())
    (_, end) = checkpoint.load_step(second, 14)
    assert end.model["average.n_averaged"] == 2


REFUSED = {
    "train.batch: 8 -> 4": {"train__batch": 4},
    "image.size: 16 -> 32": {"image": {"size": 32}},
    "decoder.0.weight: .* in the checkpoint, .* in the recipe": {
        "decoder": {"type": "conv-transpose", "widths": [32, 8]}
    },
    "discriminator.*: .* in the checkpoint, none in the recipe": {
        "discriminator": None, "losses": ["l1", "kl"],
    },
    "ends at step 6, so after step 8 nothing is left to do; .*--set train.steps=16": {
        "train__steps": 6
    },
    "images are not those of the run .*\n.*vgx fork .* --at 8 --data PLACE": {"dataset__count": 32},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_before_there_is_a_run(copy, message):
    with pytest.raises(RecipeError, match=message):
        fork(copy, 8, recipe_of(copy, **REFUSED[message]), console=quiet())
    assert not Path(vgx.runs.directory.runs_dir()).exists()


def test_the_best_checkpoint_so_far_comes_along(copy):
    """At step 8, step 4 was far better than what comes after it."""
    _, state = checkpoint.load_step(copy, 8)
    state.numbers["measured"]["psnr"] |= {"value": 100.0, "step": 4}
    checkpoint.save(copy, state, keep=3)
    new = fork(copy, 8, recipe_of(copy, train__steps=9), console=quiet())
    assert checkpoint.steps(new) == [4, 8, 9]
    assert vgx.load(new, best=True).step == 4


@pytest.mark.bar("S6")
def test_a_strangers_run_executes_nothing_and_lends_no_file(copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"my thesis")
    grid = copy.path / "samples" / "step-00000001.png"
    grid.unlink()
    grid.symlink_to(secret)
    copy.log_file.write_text("{\n" + copy.log_file.read_text())
    console, changes = quiet(), {"train__steps": 9, "trackers": ["csv"]}
    with pytest.warns(vgx.Notice, match="left out: .*step-00000001.png"):
        new = fork(copy, 8, recipe_of(copy, **changes), console=console)
    said = console.rich.file.getvalue()  # where its recipe goes
    assert "Opening the data set drawn-faces count=64" in said
    assert "Opening the tracker csv" in said
    assert b"my thesis" not in b"".join(files_of(new.path).values())
    assert [line["step"] for line in new.read_log()] == [1, 2, 4, 6, 8, 9]
    marker = tmp_path / "executed"
    (copy.path / "plugins" / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(PluginError, match="own.py"):
        fork(copy, 8, console=quiet())
    assert not marker.exists()
    assert len(list(new.path.parent.iterdir())) == 1
