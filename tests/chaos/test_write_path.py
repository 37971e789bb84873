"""A fault at every point of the way to the disk: the old checkpoint is there, or the new one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch

from vgx.errors import Notice, StorageError
from vgx.files import write_file
from vgx.runs import checkpoint
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, create

ERRORS = [
    "ENOSPC",
    *(pytest.param(e, marks=pytest.mark.chaos) for e in ("EIO", "EACCES", "EDQUOT")),
]


def state(step, mark=0.0):
    tensors = {"weight": torch.full((40,), step + mark)}
    return State(tensors, dict(tensors), {"codes": torch.eye(2)}, {"step": step, "seconds": 1.0})


class Points:
    """Counts the calls that reach the disk, and has `fault` happen at one of them.

    A write at which it happens has put half of its bytes there.
    """

    def __init__(self, folder, at, fault):
        self.folder, self.at, self.fault = str(folder), at, fault
        self.passed = []

    def __call__(self, name):
        self.passed.append(name)
        if len(self.passed) == self.at:
            self.fault()

    def around(self, name, call):
        """Pass a point before a call whose first argument lies in the run's folder."""

        def called(first, *rest, **options):
            path = str(
                Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else first
            )
            # A file descriptor of the directory that a tree is removed from comes with a name.
            if path.startswith(self.folder) or "dir_fd" in options:
                self(name)
            return call(first, *rest, **options)

        return called

    def opening(self, call):
        def opened(path, mode="r", *rest, **options):
            if not str(path).startswith(self.folder) or not set(mode) & set("wax+"):
                return call(path, mode, *rest, **options)
            self("open")
            file = call(path, mode, *rest, **options)
            return Slow(file, self)

        return opened

    @contextlib.contextmanager
    def counted(self):
        calls = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")
        with contextlib.ExitStack() as stack:
            for name in calls:
                wrapped = self.around(name, getattr(os, name))
                stack.enter_context(mock.patch.object(os, name, wrapped))
            stack.enter_context(mock.patch.object(io, "open", self.opening(io.open)))
            # The quick way to remove trees asks the os module whether its own functions are there.
            stack.enter_context(mock.patch.object(shutil, "_use_fd_functions", False))
            yield


class Slow:
    """A file whose writes and flushes are points."""

    def __init__(self, file, points):
        self.file, self.points = file, points

    def write(self, data):
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        self.points("write")
        return half + self.file.write(data[half:])

    def flush(self):
        self.points("flush")
        self.file.flush()

    def fileno(self):
        return self.file.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def believed(run):
    """Which step and value a run would go on from; what else lies there makes no difference."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)  # nothing that was committed may be damaged
        _, loaded = checkpoint.load(run)
    (value,) = set(loaded.model["weight"].tolist())
    assert loaded.optimizer["weight"].tolist() == loaded.model["weight"].tolist()
    return loaded.numbers["step"], value


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    run = create("x", folder)
    with mock.patch.object(os, "fsync"):  # nothing of this needs to last
        for step in (5, 10):
            checkpoint.save(run, state(step), keep=2)
    return run


# What is saved, and what may be loaded then: the checkpoint before, or the new one.
SAVES = {
    "a new step": (state(15), {(10, 10.0), (15, 15.0)}),
    "the same step again": (state(10, 0.5), {(10, 10.0), (10, 10.5)}),
}


@pytest.mark.bar("R2")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("new", "allowed"), SAVES.values(), ids=SAVES)
def test_a_refusal_at_any_point_leaves_the_old_one_or_the_new_one(
    tmp_path, record_property, error, new, allowed
):
    seen, messages = set(), []
    for at in range(1, 1000):
        run = fresh(tmp_path / "runs")

        def refuse():
            number = getattr(errno, error)
            raise OSError(number, os.strerror(number))

        points = Points(run.checkpoints, at, refuse)
        with points.counted():
            try:
                checkpoint.save(run, new, keep=2)
            except StorageError as refused:
                messages.append(str(refused))
        seen.add(believed(run))
        assert believed(run) in allowed
        with run.held():
            assert not list(run.checkpoints.glob(".*")), points.passed
        if len(points.passed) < at:
            break
    record_property("cases", at)
    # mkdir, four flushes for each of five files, the rename, two directories, removing one.
    assert len(points.passed) > 25
    assert {"mkdir", "open", "write", "flush", "fsync", "rename", "unlink"} <= set(points.passed)
    assert seen == allowed
    assert len(messages) >= 20
    full = error in ("ENOSPC", "EDQUOT")
    assert all(("disk full" in text) == full for text in messages)
    assert all("the last good checkpoint is step-000000" in text for text in messages)


PROGRAM = """
import importlib.util, os
spec = importlib.util.spec_from_file_location("write_path", {file!r})
this = importlib.util.module_from_spec(spec)
spec.loader.exec_module(this)
{careless}
for name, (new, allowed) in this.SAVES.items():
    seen, at = set(), 0
    while True:
        at += 1
        run = this.fresh(this.Path({folder!r}))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                points = this.Points(run.checkpoints, at, lambda: os._exit(9))
                with points.counted():
                    this.checkpoint.save(run, new, keep=2)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        seen.add(this.believed(run))
        assert this.believed(run) in allowed, (name, at, this.believed(run))
        with run.held():
            assert not list(run.checkpoints.glob(".*"))
        if code == 0:
            break
    assert seen == allowed, seen
    print(name, at)
"""
# The negative control: the way that was taken before, the old one first removed.
REMOVING = """
rename = this.Path.rename
def removing(self, other):
    if str(other).endswith(".old"):
        this.shutil.rmtree(self)
    else:
        return rename(self, other)
this.Path.rename = removing
"""


old_first = pytest.mark.bar("R2", control="the old one removed first")


@pytest.mark.parametrize(
    "careless",
    [
        pytest.param("", marks=pytest.mark.bar("R2"), id=""),
        pytest.param(REMOVING, marks=[old_first, pytest.mark.chaos], id="negative control"),
    ],
)
def test_a_process_that_ends_at_any_point_leaves_the_old_one_or_the_new_one(
    forkserver, tmp_path, record_property, careless
):
    program = PROGRAM.format(file=__file__, folder=str(tmp_path / "a"), careless=careless)
    child = forkserver.run(tmp_path, "--version", hook=program, code=1 if careless else 0)
    if careless:
        assert "damaged, so step-00000005 is used" in child.err.read_text()
        record_property("seen", "an older one than either was loaded")
        return
    points = [int(line.split()[-1]) for line in child.out.read_text().splitlines()[: len(SAVES)]]
    assert len(points) == len(SAVES)
    record_property("cases", sum(points))
    assert min(points) > 25


def in_order(folder, act):
    """What reaches the disk, in the order in which it does."""
    points = Points(folder, 0, lambda: None)
    with points.counted():
        act()
    order = ("write", "fsync", "rename", "replace", "rmdir")
    return [name for name in points.passed if name in order]


# Five files, their directory, the commit and its directory; then the oldest goes.
COMMIT = [*["write", "fsync"] * 5, "fsync", "rename", "fsync", "rename", "rmdir"]


@pytest.mark.bar("R4")
def test_flushes_come_in_the_order_that_makes_a_commit():
    """Every file is flushed before the rename, the directory after it, and only then is pruned."""
    run = fresh(None)
    assert in_order(run.checkpoints, lambda: checkpoint.save(run, state(15), keep=2)) == COMMIT


@pytest.mark.bar("R4")
def test_a_single_file_is_flushed_before_and_its_directory_after_the_rename(tmp_path):
    """The recipe, the environment, the log that is rewound, what a sampler learned."""
    names = in_order(tmp_path, lambda: write_file(tmp_path / "f.txt", "new"))
    assert names == ["write", "fsync", "replace", "fsync"]


@pytest.mark.bar("R4", control="without the flush of directories")
def test_a_flush_that_is_left_out_would_be_seen(monkeypatch, record_property):
    run = fresh(None)
    monkeypatch.setattr(checkpoint, "flush_directory", lambda _: None)
    names = in_order(run.checkpoints, lambda: checkpoint.save(run, state(15), keep=2))
    assert names != COMMIT
    record_property("seen", f"{names.count('fsync')} flushes, not {COMMIT.count('fsync')}")


@pytest.mark.bar("R2")
def test_what_a_killed_writer_left_is_removed_at_the_next_start():
    run = fresh(None)
    (run.checkpoints / ".step-00000015.99.abc").mkdir()
    (run.checkpoints / ".step-00000015.99.abc" / "model.safetensors").write_bytes(b"half")
    (run.path / ".log.jsonl.99").write_text("half")
    (run.path / ".mine.swp").write_text("somebody else's")
    with run.held():
        assert not list(run.checkpoints.glob(".*"))
        assert [path.name for path in run.path.glob(".*")] == [".mine.swp"]


@pytest.mark.bar("R2")
@pytest.mark.parametrize("at", range(1, 8))
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, at):
    file = tmp_path / "f.txt"
    write_file(file, "old")

    def refuse():
        raise OSError(errno.ENOSPC, "No space left on device")

    points = Points(tmp_path, at, refuse)
    with points.counted(), contextlib.suppress(StorageError):
        write_file(file, "new")
    assert file.read_text() in ("old", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f.txt"]


@pytest.mark.bar("R2")
def test_saving_goes_on_where_the_last_writer_was_ended():
    """It ended between the two renames of a step that was saved again."""
    run = fresh(None)
    (run.checkpoints / "step-00000010").rename(run.checkpoints / "step-00000010.old")
    assert believed(run) == (10, 10.0)
    checkpoint.save(run, state(10, 0.5), keep=2)
    assert believed(run) == (10, 10.5)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "step-00000005",
        "step-00000010",
    ]


def test_points_are_counted_where_they_are():
    """The counter itself: a run's folder and no other."""
    run = fresh(None)
    points = Points(run.checkpoints, 0, lambda: None)
    with points.counted():
        Run(run.path).path.with_name("other").mkdir()
    assert points.passed == []
    assert isinstance(run.checkpoints, Path)
