"""A full disk gives one message, and the last good checkpoint stays as it was."""

from __future__ import annotations

import hashlib
import re

import pytest

LENGTH = ["--set", "train.steps=40", "--set", "train.save_every=2", "--set", "train.keep=50"]
# Files of a run can't grow beyond so many bytes.
LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""
# The disk has no more room when the third checkpoint is saved.
THIRD = """
import resource, signal
from vgx.runs import checkpoint
saves, save = [], checkpoint.save
def saving(run, *given):
    saves.append(run)
    if len(saves) == 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    {careless}
    return save(run, *given)
checkpoint.save = saving
"""
# The negative control: room is made before the new one is there.
FIRST = "[__import__('shutil').rmtree(path) for path in checkpoint.committed(run)]"
ROOMLESS = """
import shutil
from types import SimpleNamespace
shutil.disk_usage = lambda _: SimpleNamespace(free=100_000, total=10**12)
"""


def sums(run):
    return {
        path.relative_to(run): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (run / "checkpoints").rglob("*")
        if path.is_file()
    }


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def goes_on_with_room(forkserver, folder, run, tiny, end_of):
    """Resume a run that has room now: it keeps all, and ends as one that always had room."""
    kept = sums(run)
    if (run / "recipe.yaml").exists():
        forkserver.run(folder, "resume", run)
        assert kept.items() <= sums(run).items()
        forkserver.run(folder, "run", tiny, *LENGTH)
        (whole,) = (folder / "runs").iterdir()
        assert end_of(run) == end_of(whole)


@pytest.mark.bar("R3")
@pytest.mark.chaos
@pytest.mark.parametrize("size", range(200, 1400, 100))
def test_a_full_disk_costs_nothing_that_was_saved(
    forkserver, mount, disk, tmp_path, tiny, end_of, size
):
    """Wherever it runs full: in a checkpoint, in the log, in a picture."""
    mount(disk, f"size={size}k")
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, "--out", disk)
    assert child.wait() == 5, child.err.read_text()
    message = child.err.read_text()
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 10
    assert "No space left on device" in message
    (run,) = disk.iterdir()
    if "not saved" in message:
        assert "disk full: No space left on device: needs 0." in message
        assert (
            "the last good checkpoint is step-" in message
            or "there is no checkpoint yet" in message
        )
    mount.change(disk, "size=20000k")
    goes_on_with_room(forkserver, tmp_path, run, tiny, end_of)


@pytest.mark.bar("R3")
def test_a_checkpoint_that_does_not_fit_is_exit_5(forkserver, tmp_path, tiny):
    """Files can't grow large enough: as a quota does it, without a disk of one's own."""
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=LIMITED.format(size=60_000))
    assert child.wait() == 5, child.err.read_text()
    message = child.err.read_text()
    assert "step-00000002: not saved: " in message
    assert "there is no checkpoint yet" in message
    assert "Traceback" not in message
    (run,) = (tmp_path / "runs").iterdir()
    assert list((run / "checkpoints").iterdir()) == []


def kept_after_a_full_disk(forkserver, folder, tiny, careless):
    """Names of the checkpoints that are left when the third one does not fit."""
    child = forkserver.start(folder, "run", tiny, *LENGTH, hook=THIRD.format(careless=careless))
    assert child.wait() == 5, child.err.read_text()
    (run,) = (folder / "runs").iterdir()
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.bar("R3")
def test_what_is_there_stays_when_the_next_does_not_fit(forkserver, tmp_path, tiny):
    kept = kept_after_a_full_disk(forkserver, tmp_path, tiny, "pass")
    assert kept == ["step-00000002", "step-00000004"]


@pytest.mark.chaos
@pytest.mark.bar("R3", control="old checkpoints removed before the new one is committed")
def test_room_that_is_made_too_early_would_be_seen(forkserver, tmp_path, tiny, record_property):
    kept = kept_after_a_full_disk(forkserver, tmp_path, tiny, FIRST)
    assert kept == []
    record_property("seen", "0 of 2 checkpoints left")


@pytest.mark.bar("R3")
def test_too_little_room_is_said_before_the_first_step(forkserver, tmp_path, tiny):
    child = forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=1", hook=ROOMLESS)
    output = child.out.read_text()
    assert "NOTICE: " in output
    assert "three of its checkpoints are about 1 MiB, and the disk has 0 MiB" in output
    child = forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=1")
    assert "three of its checkpoints" not in child.out.read_text()


@pytest.mark.bar("R3")
@pytest.mark.chaos
@pytest.mark.parametrize("inodes", [12, 20, 30])
def test_a_disk_without_inodes_says_so_and_loses_nothing(
    forkserver, mount, disk, tmp_path, tiny, end_of, inodes
):
    mount(disk, f"nr_inodes={inodes}")
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, "--out", disk)
    assert child.wait() == 5
    message = child.err.read_text()
    assert re.search(r": it takes [\d.,]+ MiB, but only \d files \(inodes\) of [16]; ", message)
    assert "needs" not in message
    (run,) = disk.iterdir()
    mount.change(disk, "nr_inodes=10000")
    goes_on_with_room(forkserver, tmp_path, run, tiny, end_of)


def test_of_a_run_that_is_read_only_all_is_shown_and_nothing_is_written(
    forkserver, mount, tmp_path, tiny
):
    """A disk that is read-only, since permissions do not hold for root."""
    forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=10")
    (run,) = (tmp_path / "runs").iterdir()
    mount(run, "bind", source=run)
    mount.change(run, "bind,ro")
    before = sorted(run.rglob("*"))
    forkserver.run(tmp_path, "sample", run, "-n", "4", "--out", "a.png")
    forkserver.run(tmp_path, "report", run, "--out", "a.html")
    forkserver.run(tmp_path, "explain", run, "--svg", "a.svg")
    forkserver.run(tmp_path, "compare", run, run.parent / "." / run.name, code=2)
    forkserver.run(tmp_path, "list")
    writing = (["sample"], ["report"], ["eval", "--metrics", "psnr"])
    for words in (*writing, ["run", "--set", "train.steps=12", "--resume"]):
        child = forkserver.run(tmp_path, *words, run, code=5)
        assert "is read-only for this user; write elsewhere (--out)" in child.err.read_text()
    assert sorted(run.rglob("*")) == before
