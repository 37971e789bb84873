"""Checkpoints: verified, pruned, never half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
import torch

from vgx.errors import Notice, StorageError
from vgx.runs import checkpoint
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, create


def state(step):
    return State(
        {"decoder.0.weight": torch.full((2, 3, 4, 4), float(step)).to(
            memory_format=torch.channels_last)},
        {"generator/decoder.0.weight/exp_avg": torch.arange(6.0).view(2, 3)},
        {"codes": torch.eye(3)},
        {"step": step, "seconds": 1.5, "optimizers": {"generator": {"groups": [{"lr": 1e-4}]}}},
    )  # fmt: skip


@pytest.fixture
def run():
    run = create("x")
    for step in (5, 10, 15):
        checkpoint.save(run, state(step), keep=2)
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_what_was_saved_is_loaded_and_older_ones_are_pruned(run):
    assert names(run) == ["step-00000010", "step-00000015"]
    path, loaded = checkpoint.load(run)
    assert path.name == "step-00000015"
    assert loaded.numbers == state(15).numbers
    weights = (path / "model.safetensors").read_bytes()
    assert loaded.sha256 == hashlib.sha256(weights).hexdigest()
    for kind in ("model", "optimizer", "latents"):
        ours, theirs = getattr(loaded, kind), getattr(state(15), kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def flip_a_bit(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def cut_short(path):
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def lose_the_manifest(path):
    (path / "manifest.json").unlink()


def lose_a_file(path):
    (path / "latents.safetensors").unlink()


def empty_the_manifest(path):
    (path / "manifest.json").write_text("{}")


DAMAGES = [flip_a_bit, cut_short, lose_the_manifest, lose_a_file, empty_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(run, damage):
    damage(run.checkpoints / "step-00000015")
    with pytest.warns(Notice, match="damaged, so step-00000010 is used: .*step-00000015"):
        path, loaded = checkpoint.load(run)
    assert path.name == "step-00000010"
    assert loaded.numbers["step"] == 10


def test_when_none_is_left_each_is_named(run):
    for path in run.checkpoints.iterdir():
        flip_a_bit(path)
    with pytest.raises(StorageError, match="step-00000015.*SHA-256.*step-00000010.*SHA-256"):
        checkpoint.load(run)


def test_what_was_never_committed_is_never_loaded(run):
    (run.checkpoints / "step-00000015").rename(run.checkpoints / ".step-00000015.99.abc")
    assert checkpoint.load(run)[0].name == "step-00000010"


def test_a_full_disk_leaves_what_was_there(run, monkeypatch):
    before = names(run)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(
        StorageError, match="disk full: No space left.*needs 0.00 MiB, has .*; the last good.*15"
    ):
        checkpoint.save(run, state(20), keep=2)
    assert names(run) == before
    assert checkpoint.load(run)[0].name == "step-00000015"


def newer_format_is_refused(run):
    path = run.checkpoints / "step-00000015"
    data = json.dumps({**json.loads((path / "state.json").read_text()), "format": 99}).encode()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "state.json").write_bytes(data)
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))
    (run.checkpoints / "step-00000010" / "manifest.json").unlink()
    with pytest.raises(StorageError, match="newer vgx"):
        checkpoint.load(run)


@pytest.mark.bar("R10")
def test_another_format_is_not_guessed_at(run):
    newer_format_is_refused(run)


@pytest.mark.bar("R10", control="formats are not compared")
def test_a_newer_format_that_is_read_would_be_seen(run, monkeypatch, record_property):
    monkeypatch.setattr(checkpoint, "FORMAT", 10**6)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        newer_format_is_refused(run)
    record_property("seen", "a checkpoint of format 99 is loaded")


def test_saving_the_same_step_again_replaces_it(run):
    checkpoint.save(run, state(15), keep=2)
    assert names(run) == ["step-00000010", "step-00000015"]
    assert checkpoint.load(run)[0].name == "step-00000015"


def test_the_best_one_that_is_saved_again_is_there_once(run):
    for _ in range(2):
        checkpoint.save(run, state(15), keep=1, spare=15)
    checkpoint.save(run, state(20), keep=1, spare=15)
    assert names(run) == ["step-00000015", "step-00000020"]


def test_a_disk_that_fills_up_in_the_middle_leaves_no_half_one(run):
    """The third file does not fit."""
    written = []

    class Full(type(run.path)):
        def open(self, mode="r", *args, **kwargs):
            if "w" in mode:
                written.append(self.name)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            return super().open(mode, *args, **kwargs)

    said = "step-00000020: not saved: disk full: No space left"
    with pytest.raises(StorageError, match=said) as caught:
        checkpoint.save(Run(Full(run.path)), state(20), keep=2)
    assert written == ["model.safetensors", "optimizer.safetensors", "latents.safetensors"]
    assert caught.value.exit_code == 5
    assert names(run) == ["step-00000010", "step-00000015"]
    assert checkpoint.load(run)[0].name == "step-00000015"


def test_the_first_one_that_fails_says_that_there_is_none(monkeypatch):
    run = create("x")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(StorageError, match="there is no checkpoint yet"):
        checkpoint.save(run, state(5), keep=2)
    with pytest.raises(StorageError, match="no checkpoint to load: none was saved"):
        checkpoint.load(run)


def test_older_ones_go_only_when_the_new_one_is_there(run, monkeypatch):
    kept = []
    remove = shutil.rmtree

    def removing(path, **options):
        there = (run.checkpoints / "step-00000020" / "manifest.json").exists()
        kept.append((path.name.split(".")[1], path.exists(), there))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", removing)
    checkpoint.save(run, state(20), keep=2)
    assert kept == [("step-00000010", True, True)]


def test_newest_is_by_number_and_not_by_letters(run):
    for step in (99_999_999, 100_000_000):
        checkpoint.save(run, state(step), keep=3)
    assert names(run) == ["step-00000015", "step-100000000", "step-99999999"]
    assert checkpoint.load(run)[1].numbers["step"] == 100_000_000


def test_after_a_fall_back_the_new_one_stays_and_the_damaged_ones_go():
    """Both newer ones are damaged, the run goes on from 5, and its next checkpoint is step 7."""
    run = create("x")
    for step in (5, 10, 15):
        checkpoint.save(run, state(step), keep=3)
    for step in (10, 15):
        flip_a_bit(run.checkpoints / f"step-{step:08}")
    with pytest.warns(Notice, match="step-00000005 is used: .*step-00000015.*; .*step-00000010"):
        assert checkpoint.load(run)[0].name == "step-00000005"
    assert checkpoint.save(run, state(7), keep=2).is_dir()
    assert names(run) == ["step-00000005", "step-00000007"]
    assert checkpoint.load(run)[0].name == "step-00000007"


def test_the_manifest_says_what_is_there(run):
    path = run.checkpoints / "step-00000015"
    manifest = json.loads((path / "manifest.json").read_text())
    files = {file.name for file in path.iterdir()}
    assert files == {*manifest, "manifest.json"}
    assert set(manifest) == {
        "model.safetensors", "optimizer.safetensors", "latents.safetensors", "state.json",
    }  # fmt: skip
    for name, said in manifest.items():
        data = (path / name).read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_who_may_read_is_what_the_umask_says(mask, folder, file):
    old = os.umask(mask)
    try:
        path = checkpoint.save(create("x"), state(5), keep=2)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == folder
    assert {inner.stat().st_mode & 0o777 for inner in path.iterdir()} == {file}


def test_tensors_that_share_memory_and_odd_layouts_are_saved_as_values():
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"whole": whole, "turned": whole.T, "part": whole[:, 1:2], "none": torch.zeros(0, 4)}
    run = create("x")
    checkpoint.save(run, State(tensors, {}, {}, {"step": 1}), keep=2)
    loaded = checkpoint.load(run)[1].model
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
