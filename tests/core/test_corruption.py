"""Checkpoints that were changed behind our back: every one is refused, and it is said why."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import struct
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from steps import TIMES

import vgx
from vgx.console import Console
from vgx.errors import Notice, StorageError
from vgx.runs import checkpoint
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, create
from vgx.training import resuming
from vgx.training import session as training

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
OLD = Path(__file__).parents[1] / "data" / "run-of-format-1"
HUGE = b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
FILES = ("model.safetensors", "optimizer.safetensors", "latents.safetensors", "state.json")


def state(step):
    generator = torch.Generator().manual_seed(step)
    tensors = {f"{n}.weight": torch.randn(4, 3, 2, generator=generator) for n in range(3)}
    return State(
        tensors,
        {f"generator/{name}/exp_avg": tensor for name, tensor in tensors.items()},
        {"codes": torch.randn(5, 4, generator=generator)},
        {"step": step, "seconds": 1.5, "optimizers": {"generator": {"groups": [{"lr": 1e-4}]}}},
    )


@pytest.fixture
def run():
    run = create("x")
    for step in (5, 10):
        checkpoint.save(run, state(step), keep=2)
    return run


# --- changes at random -----------------------------------------------------------------------


def bit(data, generator):
    place = generator.randrange(len(data))
    data[place] ^= 1 << generator.randrange(8)


def byte(data, generator):
    data[generator.randrange(len(data))] = generator.randrange(256)


def shorter(data, generator):
    del data[generator.randrange(len(data)) :]


def longer(data, generator):
    data += bytes(generator.randrange(256) for _ in range(generator.randrange(1, 9)))


def hole(data, generator):
    place, length = generator.randrange(len(data)), generator.randrange(1, 64)
    data[place : place + length] = bytes(len(data[place : place + length]))


def moved(data, generator):
    place = generator.randrange(len(data))
    data[:] = data[place:] + data[:place]


def lost(data, generator):
    place = generator.randrange(len(data))
    del data[place : place + generator.randrange(1, 9)]


def white(data, generator):
    """JSON that says the same in other words."""
    place = data.find(b" ", generator.randrange(len(data)))
    data[place : place + 1] = b"\t"


CHANGES = (bit, byte, shorter, longer, hole, moved, lost, white)


def changed_at_random(path, generator):
    """Change one file of a checkpoint, or which files there are; tell what was done."""
    name = generator.choice([*FILES, "manifest.json"])
    file = path / name
    kind = generator.randrange(14)
    if kind == 0:
        file.unlink()
        return f"{name} lost"
    if kind == 1:
        (path / generator.choice(["extra", ".hidden", "model.safetensors.bak"])).write_bytes(b"x")
        return "a file more"
    if kind == 2:
        other = generator.choice([n for n in FILES if n != name])
        file.write_bytes((path / other).read_bytes())
        return f"{other} over {name}"
    if kind == 3:
        file.rename(path.parent / "elsewhere")
        file.symlink_to(path.parent / "elsewhere")
        return f"{name} is a link"
    if kind == 4:
        file.write_bytes((path.parent / "step-00000005" / name).read_bytes())
        return f"{name} of another step"
    before = file.read_bytes()
    data = bytearray(before)
    change = generator.choice(CHANGES)
    change(data, generator)
    if bytes(data) == before:
        data += b"\0"
    file.write_bytes(data)
    return f"{change.__name__} in {name}"


def believed_changes(run, n):
    """Change the newest checkpoint n times; return those changes that were not noticed."""
    path, whole, generator = run.checkpoints / "step-00000010", run.path / "whole", random.Random(n)
    shutil.copytree(path, whole)
    believed = []
    for _ in range(n):
        done = changed_at_random(path, generator)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Notice)
            loaded = checkpoint.load(run)[1].numbers["step"]
        notices = [str(w.message) for w in caught if issubclass(w.category, Notice)]
        if loaded != 5 or len(notices) != 1 or str(path) not in notices[0]:
            believed.append(done)
        shutil.rmtree(path)
        shutil.copytree(whole, path)
    assert checkpoint.load(run)[0] == path  # it is the changes that were noticed
    return believed


@pytest.mark.bar("R5")
@pytest.mark.parametrize("n", [300, pytest.param(3000, marks=pytest.mark.chaos)])
def test_every_change_is_noticed_and_the_one_before_is_used(run, record_property, n):
    record_property("cases", n)
    assert believed_changes(run, n) == []


@pytest.mark.bar("R5", control="the parsers alone, without the checksums")
def test_without_the_sums_changes_would_be_believed(run, monkeypatch, record_property):
    """The negative control: the parsers alone notice only some."""

    def trusting(path):
        sums = {"model.safetensors": {"bytes": 0, "sha256": ""}}
        return sums, {name: (path / name).read_bytes() for name in FILES}

    monkeypatch.setattr(checkpoint, "verified", trusting)
    believed = len(believed_changes(run, 60))
    assert believed > 10
    record_property("seen", f"{believed} of 60 changes accepted")


# --- what is said ----------------------------------------------------------------------------


def rewritten(path, change):
    """Change the manifest and write it as it would be written."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_bytes(checkpoint._manifest(manifest))


def with_state(path, change):
    """Change the numbers, and make the manifest fit them."""
    numbers = json.loads((path / "state.json").read_bytes())
    change(numbers)
    put(path, "state.json", json.dumps(numbers, indent=1).encode())


def put(path, name, data):
    (path / name).write_bytes(data)
    about = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewritten(path, lambda manifest: manifest.update({name: about}))


def header(size):
    return struct.pack("<Q", size) + b"{" + b" " * 100


NAMED = {
    "a file less in the manifest": (
        lambda path: rewritten(path, lambda m: m.pop("latents.safetensors")),
        r"manifest\.json: not as it was written",
    ),
    "a path in the manifest": (
        lambda path: rewritten(path, lambda m: m.update({"../x": m["state.json"]})),
        r"manifest\.json: not as it was written",
    ),
    "no manifest": (
        lambda path: (path / "manifest.json").unlink(),
        r"manifest\.json: No such file",
    ),
    "a file missing": (
        lambda path: (path / "state.json").unlink(),
        r"step-00000010/state\.json: missing",
    ),
    "a file more": (
        lambda path: (path / "x.pt").write_bytes(b""),
        r"step-00000010/x\.pt: not of this checkpoint",
    ),
    "a link": (
        lambda path: [
            (path / "state.json").rename(path.parent / "s"),
            (path / "state.json").symlink_to(path.parent / "s"),
        ],
        r"state\.json: not a regular file",
    ),
    "a pipe": (
        lambda path: [(path / "state.json").unlink(), os.mkfifo(path / "state.json")],
        r"state\.json: not a regular file",
    ),
    "another size": (
        lambda path: os.truncate(path / "model.safetensors", 100),
        r"model\.safetensors: 100 bytes, not \d+",
    ),
    "another hash": (
        lambda path: rewritten(path, lambda m: m["state.json"].update({"sha256": "0" * 64})),
        r"state\.json: SHA-256 is [0-9a-f]{12}\.\.\., not 000000000000",
    ),
    "renamed": (
        lambda path: with_state(path, lambda n: n.update(step=9)),
        "step-00000010: holds step 9",
    ),
    "a newer format": (
        lambda path: with_state(path, lambda n: n.update(format=2)),
        "step-00000010: written by a newer vgx; install that",
    ),
    "no format": (
        lambda path: with_state(path, lambda n: n.pop("format")),
        r"state\.json: format: ",
    ),
    "deep JSON": (
        lambda path: put(path, "state.json", b"[" * 100_000),
        r"step-00000010/state\.json: Invalid JSON: recursion limit",
    ),
    "much JSON": (
        lambda path: put(path, "state.json", b" " * (checkpoint.MAX_JSON + 1)),
        r"state\.json: 16,777,217 bytes; at most 16,777,216 are read",
    ),
    "a manifest like a film": (
        lambda path: os.truncate(path / "manifest.json", 2**40),
        r"manifest\.json: 1,099,511,627,776 bytes; at most 16,777,216 are read",
    ),
    "a large header": (
        lambda path: put(path, "model.safetensors", header(2**60)),
        r"model\.safetensors: a header of 1,152,921,504,606,846,976 bytes; at most",
    ),
    "a pickle": (
        lambda path: put(path, "model.safetensors", b"\x80\x04cos\nsystem\n(S'id'\ntR."),
        r"model\.safetensors: a header of|model\.safetensors: SafetensorError",
    ),
    "an overflowing shape": (
        lambda path: put(path, "model.safetensors", struct.pack("<Q", len(HUGE)) + HUGE),
        r"model\.safetensors: SafetensorError",
    ),
}


@pytest.mark.bar("R5")
@pytest.mark.parametrize(("damage", "said"), NAMED.values(), ids=NAMED)
def test_what_is_wrong_is_named(run, damage, said):
    damage(run.checkpoints / "step-00000010")
    with pytest.warns(Notice, match=f"damaged, so step-00000005 is used: .*{said}"):
        assert checkpoint.load(run)[1].numbers["step"] == 5
    shutil.rmtree(run.checkpoints / "step-00000005")
    with pytest.raises(StorageError, match=said) as refused:
        checkpoint.load(run)
    assert refused.value.exit_code == 5


def test_one_before_a_step_is_asked_for(run):
    assert checkpoint.load(run, before=10)[1].numbers["step"] == 5
    with pytest.raises(StorageError, match="none was saved"):
        checkpoint.load(run, before=5)


# --- a run that has them ---------------------------------------------------------------------


def quiet():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture
def trained():
    return training.run(vgx.load_recipe(TINY, {"train.steps": 10}), console=quiet())


@pytest.mark.bar("R5")
def test_a_resume_falls_back_says_so_and_ends_alike(trained):
    _, wanted = checkpoint.load(trained)
    newest = trained.checkpoints / "step-00000010"
    (newest / "optimizer.safetensors").write_bytes(b"")
    console = quiet()
    training.resume(trained, console=console)
    said = console.rich.file.getvalue()
    assert "NOTICE: damaged, so step-00000005 is used" in said
    assert "optimizer.safetensors: 0 bytes, not" in said
    assert "goes on from step 5" in said
    _, again = checkpoint.load(trained)
    for kind in ("model", "optimizer", "latents"):
        ours, theirs = getattr(again, kind), getattr(wanted, kind)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [line["step"] for line in trained.read_log()] == list(range(1, 11))


@pytest.mark.bar("R5")
def test_when_all_are_damaged_or_gone_nothing_begins_again(trained):
    before = trained.log_file.read_bytes()
    for path in checkpoint.committed(trained):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(StorageError, match=r"no checkpoint to load: .*step-00000010.*step-000000"):
        training.resume(trained, console=quiet())
    shutil.rmtree(trained.checkpoints)
    trained.checkpoints.mkdir()
    with pytest.raises(StorageError, match="no checkpoint to load: none was saved"):
        training.resume(trained, console=quiet())
    assert trained.log_file.read_bytes() == before


def test_a_run_that_was_ended_before_its_first_checkpoint_begins_again(trained):
    _, wanted = checkpoint.load(trained)
    log = [{**line, **dict.fromkeys(TIMES)} for line in trained.read_log()]
    shutil.rmtree(trained.checkpoints)
    trained.checkpoints.mkdir()
    trained.rewind_log(3)
    (trained.path / "ended.json").unlink()  # it was killed
    console = quiet()
    training.resume(trained, console=console)
    assert "ended before its first checkpoint; begins again" in console.rich.file.getvalue()
    _, again = checkpoint.load(trained)
    assert all(torch.equal(again.model[name], wanted.model[name]) for name in wanted.model)
    assert [{**line, **dict.fromkeys(TIMES)} for line in trained.read_log()] == log


def left_by(run, how, step, logged, *, folder=True):
    """Leave a run without checkpoints: how it ended, at which step, and its last logged step."""
    shutil.rmtree(run.checkpoints)
    if folder:
        run.checkpoints.mkdir()
    run.rewind_log(logged)
    if how is None:
        (run.path / "ended.json").unlink(missing_ok=True)
    else:
        ended = {"how": how, "step": step, "of": 10, "signal": None, "message": ""}
        (run.path / "ended.json").write_text(json.dumps(ended))


def test_a_run_whose_saved_steps_are_gone_is_not_begun_again(trained, tmp_path):
    """The recipe of `trained` saves every five steps: so those of its first five are saved."""
    recipe = vgx.load_recipe(trained.recipe_file)
    assert recipe.train.save_every == 5

    def never_saved(how, step, logged, recipe=recipe, **leaving):
        copy = Run(shutil.copytree(trained.path, tmp_path / "copy"))
        left_by(copy, how, step, logged, **leaving)
        answer = resuming.never_saved(copy, recipe)
        shutil.rmtree(copy.path)
        return answer

    assert not never_saved(None, 0, 6)
    assert never_saved(None, 0, 5)  # killed while the first checkpoint was written
    assert never_saved("diverged", 4, 4)
    assert never_saved("failed", 4, 4)
    assert never_saved("stopped", 0, 0)
    assert not never_saved("stopped", 3, 3)
    assert not never_saved("done", 4, 4)
    assert not never_saved(None, 0, 3, folder=False)  # each run has the folder from its beginning
    rollback = vgx.load_recipe(trained.recipe_file, {"train.on_nonfinite": "rollback"})
    assert not never_saved(None, 0, 1, rollback)  # it saves before its first step
    assert never_saved(None, 0, 0, rollback)
    measures = {"eval.metrics": ["l1"], "eval.every": 2, "eval.best": "l1"}
    measured = vgx.load_recipe(trained.recipe_file, measures)
    assert not never_saved(None, 0, 3, measured)  # the best of one
    assert never_saved(None, 0, 2, measured)
    about = {**trained.environment(), "parent": {"run": "a", "step": 2, "how": "fork"}}
    (trained.path / "environment.json").write_text(json.dumps(about))
    assert not never_saved(None, 0, 3)  # a fork saves before it goes on
    about["parent"]["how"] = "start"
    (trained.path / "environment.json").write_text(json.dumps(about))
    assert never_saved(None, 0, 3)


def test_what_is_due_first_is_said_by_the_recipe_of_the_run_and_not_by_a_new_one(trained):
    often = vgx.load_recipe(trained.recipe_file, {"train.save_every": 2})
    seldom = vgx.load_recipe(trained.recipe_file, {"train.save_every": 1000})
    left_by(trained, None, 0, 6)
    before = trained.log_file.read_bytes()
    with pytest.raises(StorageError, match="no checkpoint to load"):
        training.resume(trained, seldom, console=quiet())
    assert trained.log_file.read_bytes() == before
    trained.rewind_log(4)
    console = quiet()
    training.resume(trained, often, console=console)
    assert "ended before its first checkpoint; begins again" in console.rich.file.getvalue()
    assert [line["step"] for line in trained.read_log()] == list(range(1, 11))


def test_a_checkpoint_of_another_recipe_does_not_fit(trained):
    path = trained.checkpoints / "step-00000010"
    tensors = safetensors.torch.load((path / "model.safetensors").read_bytes())
    tensors["decoder.0.weight"] = tensors["decoder.0.weight"][:1]
    put(path, "model.safetensors", checkpoint.tensor_bytes(tensors))
    with pytest.raises(StorageError, match="does not fit the recipe: .*size mismatch"):
        training.resume(trained, console=quiet())


# --- an old one ------------------------------------------------------------------------------


@pytest.mark.bar("R10")
def test_a_stored_run_of_the_first_format_goes_on(tmp_path):
    """Made by the first format's code: whatever changes since, it can be read."""
    size = sum(path.stat().st_size for path in OLD.rglob("*"))
    assert size < 200_000
    run = Run(shutil.copytree(OLD, tmp_path / "run"))
    _, stored = checkpoint.load(run)
    assert stored.numbers["step"] == 4
    assert stored.model["average.n_averaged"] == 4
    assert stored.model["discriminator.head.bias"].item() == pytest.approx(0.04752907)
    console = quiet()
    training.resume(run, console=console)
    assert "goes on from step 4" in console.rich.file.getvalue()
    _, ended = checkpoint.load(run)
    assert ended.numbers["step"] == 6
    assert [line["step"] for line in run.read_log()] == list(range(1, 7))
    assert vgx.sample(run, n=4).shape == (4, 3, 8, 8)
