"""Many at once in one run directory: exactly one trains, whoever looks sees whole checkpoints."""

from __future__ import annotations

import time

import pytest

# Of a run that is done nothing would be left to do.
LONGER = ("run", "--set", "train.steps=6", "--resume")
# It trains only when the test lets it.
WAITING = """
import time
from pathlib import Path
from vgx.training import environment
def waiting(*_):
    Path(f"holds-{__import__('os').getpid()}").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return []
environment.room = waiting
"""
# The negative control: a lock that lets everybody in. They would also tidy each other's files away.
OPEN = """
import fcntl
from vgx import files
from vgx.runs.directory import Run
fcntl.flock = files.tidy = Run.tidy = lambda *_: None
"""


def started(forkserver, folder, run, count, hook):
    children = [forkserver.start(folder, *LONGER, run, hook=hook) for _ in range(count)]
    deadline = time.monotonic() + 120
    while True:
        holders = list(folder.glob("holds-*"))
        refused = [child for child in children if child.err.read_text()]
        if len(holders) + len(refused) == count:
            return children, holders, refused
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.bar("L1")
@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.chaos)])
def test_of_many_simultaneous_starts_one_trains(forkserver, tmp_path, tiny, record_property, count):
    record_property("cases", count)
    forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=4", "--set", "train.save_every=2")
    (run,) = (tmp_path / "runs").iterdir()
    children, holders, refused = started(forkserver, tmp_path, run, count, WAITING)
    assert len(holders) == 1
    holder = holders[0].name.partition("-")[2]
    for child in refused:
        message = child.err.read_text()
        assert f"process {holder} (on " in message
        assert "is training here" in message
        assert "Traceback" not in message
    forkserver.run(tmp_path, "sample", run, "-n", 4)  # who only looks is not refused
    (tmp_path / "go").touch()
    assert sorted(child.wait() for child in children) == [0, *[7] * (count - 1)]


@pytest.mark.chaos
@pytest.mark.bar("L1", control="no lock")
def test_without_the_lock_several_would_train(forkserver, tmp_path, tiny, record_property):
    """The negative control."""
    forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=4")
    (run,) = (tmp_path / "runs").iterdir()
    children, holders, refused = started(forkserver, tmp_path, run, 2, OPEN + WAITING)
    assert len(holders) == 2, [child.err.read_text() for child in refused]
    record_property("seen", "2 of 2 train")
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.bar("L1")
def test_the_lock_of_a_killed_process_is_taken_over(forkserver, tmp_path, tiny):
    forkserver.run(tmp_path, "run", tiny, "--set", "train.steps=4")
    (run,) = (tmp_path / "runs").iterdir()
    (child,), _, _ = started(forkserver, tmp_path, run, 1, WAITING)
    forkserver.run(tmp_path, *LONGER, run, code=7)
    child.kill()
    assert child.wait() == -9
    forkserver.run(tmp_path, "resume", run)
