"""Whether a run repeats is asked of the run: the steps between its last two checkpoints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import safetensors.torch

import vgx
from vgx.console import Console
from vgx.data import cache, sums
from vgx.errors import Notice, StorageError
from vgx.runs import checkpoint
from vgx.training import session
from vgx.training.verify import verify

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def quiet():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture
def run():
    changes = {"train.steps": 10, "train.save_every": 4, "train.log_every": 2}
    changes["losses.0"] = {"type": "bce-adversarial", "every": 5}  # in steps 1 and 6 alone
    return session.run(vgx.load_recipe(TINY, changes), console=quiet())


def everything(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_the_steps_since_the_checkpoint_before_are_repeated_and_nothing_is_written(run):
    console, before = quiet(), everything(run)
    assert verify(run, console=console) == (9, 10)
    assert "steps 9 to 10 repeat bit for bit" in console.rich.file.getvalue()
    after = everything(run)
    lock = run.path / "lock"
    assert {**before, lock: b""} == {**after, lock: b""}


def test_a_loss_that_was_another_is_named(run):
    lines = run.read_log()
    was = lines[-1]["losses"]["l1"]
    lines[-1]["losses"]["l1"] = was + 1e-15 if was + 1e-15 != was else was * (1 + 1e-12)
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StorageError, match=r"step 10: l1 was 0\.\d+ and is 0\.\d+ now; another"):
        verify(run, console=quiet())


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model", "encoder.mu.bias"),
        ("model", "average.module.decoder.0.bias"),
        ("optimizer", "generator/decoder.0.bias/exp_avg_sq"),
        ("latents", "codes"),
    ],
)
def test_a_tensor_that_was_another_is_named(run, file, name, monkeypatch):
    path = run.checkpoints / "step-00000008" / f"{file}.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    assert name in tensors
    load = checkpoint.load

    def changed(run, before=None):
        where, state = load(run, before)
        if before is None:
            getattr(state, file)[name].view(-1)[0] += 1e-3
        return where, state

    monkeypatch.setattr(checkpoint, "load", changed)
    with pytest.raises(StorageError, match=f"{name} is not what the checkpoint of step 10 holds"):
        verify(run, console=quiet())


def test_with_one_checkpoint_there_is_nothing_to_compare(run):
    for path in checkpoint.committed(run)[1:]:
        path.rename(run.path / path.name)
    with pytest.raises(StorageError, match="no checkpoint to load: none was saved before step 10"):
        verify(run, console=quiet())


def test_all_images_are_hashed_whatever_the_stamp_says(run):
    """As after an error of the disk, which changes no status of a file."""
    (images,) = cache.folder().glob("*/images.u8")
    before, data = images.read_bytes(), bytearray(images.read_bytes())
    data[len(data) // 2] ^= 4
    images.write_bytes(data)
    about = sums.read_about(images.parent)
    (vgx.cache_dir() / "verified").mkdir(exist_ok=True)
    with images.open("rb") as opened:
        sums._stamp(images.parent).write_text(sums._state(opened, about))
    assert session.resume(run, console=quiet()) is None  # without a notice
    with pytest.warns(Notice, match=r"images.u8 is not as it was written; its images are decoded"):
        assert verify(run, console=quiet()) == (9, 10)
    assert images.read_bytes() == before
