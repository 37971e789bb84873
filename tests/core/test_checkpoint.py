"""Checkpoints: verified, pruned, never half."""

from __future__ import annotations

import json
import os

import pytest
import torch

from vgx import checkpoint
from vgx.checkpoint import State
from vgx.errors import StorageError
from vgx.rundir import create


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
        StorageError, match="No space left.*the last good checkpoint is step-000000"
    ):
        checkpoint.save(run, state(20), keep=2)
    assert names(run) == before
    assert checkpoint.load(run)[0].name == "step-00000015"


def test_another_format_is_not_guessed_at(run):
    import hashlib

    path = run.checkpoints / "step-00000015"
    data = json.dumps({**json.loads((path / "state.json").read_text()), "format": 99}).encode()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "state.json").write_bytes(data)
    (path / "manifest.json").write_text(json.dumps(manifest))
    (run.checkpoints / "step-00000010" / "manifest.json").unlink()
    with pytest.raises(StorageError, match="newer vgx"):
        checkpoint.load(run)


def test_saving_the_same_step_again_replaces_it(run):
    checkpoint.save(run, state(15), keep=2)
    assert names(run) == ["step-00000010", "step-00000015"]
    assert checkpoint.load(run)[0].name == "step-00000015"
