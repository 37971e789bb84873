"""Whatever lies in place of what is written: nothing outside of a run is changed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading

import pytest
import torch

STEP, SAMPLE = "step-00000010", "weighted-mix-00000010-seed-0.png"
SHORT = ["--set", "train.steps=10", "--set", "trackers=[csv]"]
SMALL = ["--metrics", "psnr", "-n", "8", "--seeds", "1"]
# Commands that write in a run, and where each does.
COMMANDS = {
    "resume": (("run", "--set", "train.steps=12", "--resume"), ("",)),
    "sample": (("sample", "-n", "1"), ("samples", f"samples/{SAMPLE}")),
    "fitted": (("sample", "-n", "1", "--sampler", "gaussian-mixture"), ("samplers", "samples")),
    "eval": (("eval", *SMALL), ("evaluation.json",)),
    "report": (("report",), ("report.html",)),
}
FILES = (
    "lock", "log.jsonl", "nonfinite.jsonl", "recipe.yaml", "environment.json", "audit.json",
    "ended.json", "evaluation.json", "profile.json", "report.html",
)  # fmt: skip
FOLDERS = ("checkpoints", "plugins", "samplers", "samples", "trackers", f"checkpoints/{STEP}")
INSIDE = (
    f"samples/{SAMPLE}", f"samples/{STEP}.png", "samples/timelapse.webp", "trackers/values.csv",
    f"checkpoints/.{STEP}.4711.0a0a0a0a", "checkpoints/step-00000005.old", "trackers/tensorboard",
    f"samples/.unfinished-{'a' * 16}",
)  # fmt: skip
QUICK = {("lock", "a link"), ("checkpoints", "a link"), ("samples", "a link"), ("lock", "a pipe")}
APPENDED = ("lock", "log.jsonl", "nonfinite.jsonl", "trackers/values.csv")
CASES = [
    *((place, kind) for place in (*FILES, *INSIDE) for kind in ("a link", "a pipe")),
    *((place, kind) for place in FOLDERS for kind in ("a link", "a dead link")),
    *((place, "a dead link") for place in ("lock", "report.html", f"samples/{SAMPLE}")),
    *((place, "a file") for place in FOLDERS[:5]),
    *((place, "a second name") for place in APPENDED),
]
# The negative control: nobody looks at what lies there.
BLIND = """
from vgx.runs import directory
directory.require_own = lambda *_, **__: None
directory.open_own = lambda path: path.open("a+", encoding="utf-8")
"""


@pytest.fixture(scope="module")
def trained(forkserver, tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("trained")
    forkserver.run(folder, "run", tiny, *SHORT)
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (run,) = (tmp_path / "runs").iterdir()
    return run


def lay(run, place, kind):
    """Put something in place of a file of a run, and return the folder that it leads to."""
    outside, path = run.parents[1] / "outside", run / place
    outside.mkdir()
    moved = outside / path.name
    path.parent.mkdir(exist_ok=True)
    if kind != "a dead link":
        if path.exists():
            path.rename(moved)
        elif place in FOLDERS or place.startswith("checkpoints/"):
            moved.mkdir()
        else:
            moved.write_text("my thesis")
        if moved.is_dir():  # what a training would remove from a folder of checkpoints
            (moved / ".step-00000007.4711.0a0a0a0a").mkdir()
            (moved / "step-00000001").mkdir()
            (moved / ".timelapse.webp.4711").write_text("half")
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a file":
        path.write_text("a file")
    elif kind == "a second name":
        path.hardlink_to(moved)
    else:
        path.symlink_to(moved)
    return outside


def seen(folder):
    """All that is in a folder, with its content and the time when it was changed."""
    return {
        path: (about.st_mode, about.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
        for about in [path.lstat()]
    }


def commands(place, kind):
    """Return the commands to try, and whether each comes by this place.

    A training looks at all of a run. Sampling is tried too where it reads; no pipe is, since what
    waits for a writer is not asked here.
    """
    tried = {"resume": True}
    reads = ("lock", "checkpoints", f"checkpoints/{STEP}", f"samples/.unfinished-{'a' * 16}")
    for name, (_, written) in COMMANDS.items():
        comes = any(f"{each}/".startswith(f"{place}/") for each in written)
        if (
            name not in tried
            and kind != "a pipe"
            and (comes or (name == "sample" and place in reads))
        ):
            tried[name] = comes
    return tried


def attack(forkserver, run, name, hook=""):
    """Run a command, and return its exit code and what it said."""
    child = forkserver.start(run.parents[1], *COMMANDS[name][0], run, hook=hook)
    code, said = child.wait(), child.err.read_text()
    assert "Traceback" not in said
    return code, said


@pytest.mark.bar("S11")
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.chaos, id=" ".join(case))
        for case in CASES
    ],
)
def test_what_leads_out_of_a_run_is_refused(forkserver, copied, place, kind, record_property):
    outside = lay(copied, place, kind)
    before, tried = seen(outside), commands(place, kind)
    for name, comes in tried.items():
        code, said = attack(forkserver, copied, name)
        assert seen(outside) == before, (name, said)
        refused = 3 if place == "plugins" else 5  # it is looked at before anything is imported
        # What a sampler learned need not be kept.
        codes = (refused,) if comes and name != "fitted" else (0, refused)
        assert code in codes, (name, code, said)
        if name == "resume" and (place != "recipe.yaml" or kind == "a link"):
            assert f"{place}: " in said
    record_property("cases", len(tried))


@pytest.mark.chaos
@pytest.mark.bar("S11", control="without a look at what lies there, five places")
def test_without_the_look_files_outside_would_change(
    forkserver, trained, tmp_path, record_property
):
    """The negative control."""
    changed = []
    for place in ("lock", "checkpoints", "samples", "trackers", "evaluation.json"):
        folder = tmp_path / place
        shutil.copytree(trained, folder)
        (run,) = (folder / "runs").iterdir()
        outside = lay(run, place, "a link")
        before = seen(outside)
        name = "eval" if place == "evaluation.json" else "resume"
        attack(forkserver, run, name, hook=BLIND)
        if seen(outside) != before:
            changed.append(place)
    record_property("seen", f"{len(changed)} of 5 changed")
    assert len(changed) == 5


# --- behind --out, --svg and --separate ----------------------------------------------------------

WRITERS = {
    "sample": ("a.png", ("sample", "RUN", "-n", "1", "--out")),
    "animate": ("a.webp", ("sample", "RUN", "-n", "2", "--animate", "--out")),
    "report": ("a.html", ("report", "RUN", "--out")),
    "compare": ("a.html", ("compare", "RUN", "OTHER", "--out")),
    "explain": ("a.svg", ("explain", "RUN", "--svg")),
    "import-weights": ("a.safetensors", ("import-weights", "w.pt")),
}
KINDS = (
    "a link",
    "a dead link",
    "a device",
    "a link to a device",
    "a pipe",
    "a folder",
    "a socket",
)
REPLACING = """
from vgx import files
files.destination = lambda path: path
"""


def device(path):
    """Make one more /dev/null, so that the real one is in no danger."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.write_bytes(b"")
    except OSError:
        pytest.skip("only root can make a device here")


def target(folder, name, kind):
    """Lay something where a command is told to write, and return where that is."""
    path, inner = folder / name, folder / "inner"
    inner.mkdir()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        device(path)
    else:
        path.symlink_to(inner / name)
        if kind == "a link to a device":
            device(inner / name)
        elif kind == "a link":
            (inner / name).write_text("old")
    return path


@pytest.mark.bar("S11")
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(
            command, kind, id=f"{command} {kind}",
            marks=() if (command, kind) in (("sample", "a link"), ("sample", "a device"))
            else pytest.mark.chaos,
        )
        for command in WRITERS
        for kind in KINDS
    ],
)  # fmt: skip
def test_what_is_written_to_stays_what_it_is(forkserver, copied, tmp_path, command, kind):
    name, words = WRITERS[command]
    if command == "compare":
        shutil.copytree(copied, tmp_path / "other")
    if command == "import-weights":
        torch.save({"weight": torch.ones(2)}, tmp_path / "w.pt")
    path = target(tmp_path, name, kind)
    mode, got = path.lstat().st_mode, []
    if kind == "a pipe":
        threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True).start()
    places = {"RUN": copied, "OTHER": tmp_path / "other"}
    child = forkserver.start(tmp_path, *(places.get(word, word) for word in words), path)
    code, said = child.wait(), child.err.read_text()
    there = command == "import-weights" and kind != "a dead link"  # never written over
    refused = there or kind in ("a folder", "a socket")
    assert code == (5 if refused else 0), said
    assert "Traceback" not in said
    assert path.lstat().st_mode == mode
    inner = tmp_path / "inner" / name
    if kind in ("a link", "a dead link"):
        assert (inner.exists() and inner.read_bytes() != b"old") == (not refused)
    elif kind == "a link to a device":
        assert stat.S_ISCHR(inner.lstat().st_mode)
    elif kind == "a pipe" and not refused:
        assert len(got[0]) > 100
    assert not list(tmp_path.glob("**/.unfinished-*"))


@pytest.mark.bar("S11", control="devices and links are replaced")
def test_a_device_that_is_replaced_would_be_noticed(forkserver, copied, tmp_path, record_property):
    """The negative control."""
    for number, kind in enumerate(("a device", "a link")):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = target(folder, "a.png", kind)
        mode = path.lstat().st_mode
        forkserver.run(tmp_path, "sample", copied, "-n", "1", "--out", path, hook=REPLACING)
        assert path.lstat().st_mode != mode
        assert stat.S_ISREG(path.lstat().st_mode)
    record_property("seen", "2 of 2 became files")


@pytest.mark.bar("S11")
@pytest.mark.parametrize("name", ["null", "fd"])
def test_a_device_of_any_name_takes_what_is_drawn(forkserver, copied, tmp_path, name):
    path = tmp_path / name
    if name == "null":
        device(path)
    else:
        path = "/dev/fd/1"
    for words in (("sample", copied, "-n", "1", "--out"), ("report", copied, "--out")):
        child = forkserver.run(tmp_path, *words, path)
        if name == "fd":
            start = child.out.read_bytes()[:8]
            assert start == (b"\x89PNG\r\n\x1a\n" if words[0] == "sample" else b"<!doctyp")


@pytest.mark.bar("S11")
@pytest.mark.parametrize("kind", ["a link", "a device", "a pipe", "a folder"])
def test_no_image_of_its_own_folder_leads_elsewhere(forkserver, copied, tmp_path, kind):
    """`--separate`: the folder may be a link, what is in it may not."""
    real, folder = tmp_path / "real", tmp_path / "images"
    real.mkdir()
    folder.symlink_to(real)
    forkserver.run(tmp_path, "sample", copied, "-n", "2", "--separate", folder)
    assert sorted(path.name for path in real.iterdir()) == ["000000.png", "000001.png"]
    (real / "000001.png").unlink()
    path = target(real, "000001.png", kind)
    (real / "inner").rename(tmp_path / "inner")
    mode, before = path.lstat().st_mode, seen(tmp_path / "inner")
    child = forkserver.run(tmp_path, "sample", copied, "-n", "2", "--separate", folder, code=5)
    assert "other files are there, 1 in all, such as 000001.png" in child.err.read_text()
    assert path.lstat().st_mode == mode
    assert seen(tmp_path / "inner") == before
