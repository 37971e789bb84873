"""Whoever stops listening loses nothing: readers that leave, terminals that close, full streams."""

from __future__ import annotations

import json
import os
import pty
import shutil
import time

import pytest

LENGTH = [
    "--set",
    "train.steps=40",
    "--set",
    "train.save_every=1000",
    "--set",
    "train.draw_every=9",
]

# What becomes of standard output and standard error, in the process of vgx before it begins.
NOBODY = "import os; near, far = os.pipe(); os.close(near); [os.dup2(far, n) for n in {numbers}]\n"
LEAVES = """
import os
near, far = os.pipe()
if os.fork() == 0:  # as `| head -1` does
    os.close(far)
    shown = b""
    while {until!r} not in shown and (more := os.read(near, 1)):
        shown += more
    os._exit(0)
os.close(near)
os.dup2(far, 1)
os.dup2(far, 2)
os.close(far)
"""
TERMINAL = """
import os, signal
signal.signal(signal.SIGHUP, signal.{action})
terminal = os.open({path!r}, os.O_RDWR)  # that of the session, which this process leads
for number in range(3):
    os.dup2(terminal, number)
"""
STREAMS = {
    "the reader leaves after a line": LEAVES.format(until=b"\n"),
    "the reader leaves when it trains": LEAVES.format(until=b"Run "),
    "nobody reads": NOBODY.format(numbers=(1, 2)),
    "nobody reads errors": NOBODY.format(numbers=(2,)),
    "a full disk": """
import os
full = os.open("/dev/full", os.O_WRONLY)
os.dup2(full, 1)
os.dup2(full, 2)
""",
    "closed": "import os, sys; os.closerange(0, 3); sys.stdin = sys.stdout = sys.stderr = None\n",
    "closed by a part": "import vgx.training.loop as loop, sys, os; does = loop.Training.step\n"
    "def step(self):\n"
    "    sys.stdout.close(); sys.stderr.close(); os.closerange(1, 3)\n"
    "    return does(self)\n"
    "loop.Training.step = step\n",
    "a terminal that is closed": TERMINAL,
}
UNGUARDED = """
import vgx.console, vgx.output
vgx.output.guard_streams = lambda: None
vgx.console.guarded = lambda stream: stream
"""


@pytest.fixture(scope="module")
def trained(forkserver, tmp_path_factory, tiny, end_of):
    """A folder with a run of 20 steps and the store, and what a run of 40 steps comes to."""
    folder = tmp_path_factory.mktemp("listeners")
    forkserver.run(folder, "run", tiny, *LENGTH)
    whole = end_of(folder / "runs" / "0001-tiny")
    shutil.rmtree(folder / "runs")
    forkserver.run(folder, "run", tiny, *LENGTH, "--set", "train.steps=20")
    return folder, whole


def listening(forkserver, folder, stream, *words, hook=""):
    """Run a command whose output ends like this; return its exit code."""
    begin = STREAMS[stream]
    if begin != TERMINAL:
        return forkserver.start(folder, *words, hook=begin + hook).wait()
    return at_a_terminal(forkserver, folder, "SIG_IGN", *words, hook=hook)


def at_a_terminal(forkserver, folder, action, *words, hook="", until=b""):
    """Run a command at a terminal that is closed when something was shown there."""
    master, slave = pty.openpty()
    begin = TERMINAL.format(action=action, path=os.ttyname(slave))
    # The command must be at work when the terminal goes.
    child = forkserver.start(folder, *words, hook=begin + hook, TERM="xterm")
    shown = b""
    while not shown or until not in shown:
        shown += os.read(master, 1000)
    time.sleep(0.3)
    os.close(slave)
    os.close(master)
    return child.wait()


def newest(folder):
    return max((folder / "runs").iterdir())


def kept(folder, command):
    """Whether all that a command computes is there."""
    run = newest(folder)
    if command in ("run", "resume"):
        ended = {"how": ""}
        if (run / "ended.json").is_file():
            ended = json.loads((run / "ended.json").read_text())
        saved = (run / "checkpoints" / "step-00000040" / "manifest.json").is_file()
        return ended["how"] == "done" and saved and (run / "report.html").is_file()
    if command == "separate":
        return len([*(folder / "images").glob("*.png")]) == 30
    return {
        "sample": folder / "grid.png",
        "eval": run / "evaluation.json",
        "report": folder / "page.html",
    }[command].is_file()


COMMANDS = {
    "run": ("run", "TINY", *LENGTH),
    "resume": ("run", "--resume", "1", *LENGTH),
    "sample": ("sample", "1", "--out", "grid.png"),
    "separate": ("sample", "1", "-n", "30", "--separate", "images"),
    "eval": ("eval", "1", "--metrics", "psnr", "-n", "20", "--seeds", "1"),
    "report": ("report", "1", "--out", "page.html"),
}
OF_TRAINING = ("the reader leaves when it trains", "closed by a part")
FAST = [("the reader leaves when it trains", "run"), ("a full disk", "resume"), ("closed", "run")]
CASES = [
    pytest.param(s, c, marks=() if (s, c) in FAST else pytest.mark.chaos)
    for s in STREAMS
    for c in COMMANDS
    if s not in OF_TRAINING or c in ("run", "resume")
]


def places(folder, trained):
    shutil.copytree(trained[0] / "runs", folder / "runs")
    shutil.copytree(trained[0] / "cache", folder / "cache")


@pytest.mark.bar("Q3")
@pytest.mark.parametrize(("stream", "command"), CASES)
def test_whoever_stops_listening_loses_nothing(
    forkserver, tmp_path, trained, tiny, end_of, stream, command
):
    places(tmp_path, trained)
    words = [str(tiny) if word == "TINY" else word for word in COMMANDS[command]]
    code = listening(forkserver, tmp_path, stream, *words)
    prints = command not in ("run", "resume")  # a training has its lines in its run as well
    assert code == (5 if stream == "a full disk" and prints else 0)
    assert kept(tmp_path, command)
    if not prints:
        assert end_of(newest(tmp_path)) == trained[1]


@pytest.mark.bar("Q3")
def test_a_terminal_that_is_closed_stops_a_training_as_sigterm_does(
    forkserver, tmp_path, trained, tiny, end_of
):
    places(tmp_path, trained)
    begun = "import vgx.training.loop as loop, time; does = loop.Training.step\n"
    begun += "loop.Training.step = lambda self: (time.sleep(0.05), does(self))[1]\n"
    code = at_a_terminal(
        forkserver, tmp_path, "SIG_DFL", "run", tiny, *LENGTH, hook=begun, until=b"Run "
    )
    run = newest(tmp_path)
    assert code == 129
    ended = json.loads((run / "ended.json").read_text())
    assert (ended["how"], ended["signal"]) == ("stopped", 1)
    assert "SIGHUP: stopped at step" in ended["message"]
    assert "saved; go on with: vgx resume 2" in ended["message"]
    assert (run / "report.html").is_file()
    forkserver.run(tmp_path, "resume", run)
    assert end_of(run) == trained[1]


@pytest.mark.chaos
@pytest.mark.bar("Q3", control="output without its guard")
@pytest.mark.parametrize("stream", [OF_TRAINING[0], "a terminal that is closed"])
def test_without_the_guard_it_is_noticed(
    forkserver, tmp_path, trained, tiny, stream, record_property
):
    """The negative control."""
    places(tmp_path, trained)
    code = listening(forkserver, tmp_path, stream, "run", tiny, *LENGTH, hook=UNGUARDED)
    assert code != 0
    record_property("seen", f"{stream}: exit {code}, not 0")
    if newest(tmp_path).name != "0001-tiny":  # it trained already
        assert not kept(tmp_path, "run")
