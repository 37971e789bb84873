"""What the terminal shows: a progress at any width, plain lines in a file, whole words."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from rich import console as rich_console

from vgx import console as module
from vgx.console import Console, Progress
from vgx.output import guarded, lost
from vgx.runs.best import Measured, Measurement, measured_in
from vgx.runs.directory import Run
from vgx.training import ending, signals

TERMS = ["bce-adversarial G 0.841", "l1 0.286", "bce 0.743", "kl 0.000693"]
TERMS += ["bce-adversarial D 1.43", "psnr 17.9 (best 18.2 at step 400)"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.time)
    return now


def terminal(width):
    console = Console()
    console.rich = rich_console.Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    return console


def shown(progress, width):
    console = terminal(width)
    console.rich.print(progress)
    return console.rich.file.getvalue().splitlines()


def trained(clock, steps, seconds=10.0, total=500):
    progress = Progress("Training", total, 0, "steps", 32)
    for _ in range(steps):
        clock.time += seconds
        progress.advance(1, TERMS)
    return progress


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("total", [500, 100_000])
def test_what_matters_is_in_the_first_line_at_any_width(clock, width, total):
    progress = trained(clock, 12, 0.1, total)
    first, *below = shown(progress, width)
    left = {500: "0:49", 100_000: "2:46:39"}[total]  # 488 and 99,988 steps of 0.1 seconds
    match = re.fullmatch(rf"Training (.{{4,}}?) +12/{total:,} +320 images/s +{left} left", first)
    assert match, first  # with four characters of a bar at least
    assert all(len(line) <= width for line in (first, *below))
    assert "  ".join(below).split() == " ".join(TERMS).split()


def test_no_time_is_told_while_nothing_is_done(clock):
    """As of a source with many empty groups."""
    progress = Progress("Hashing", 100, 0, "images", 1)
    for _ in range(20):
        clock.time += 1
        progress.advance(0, ())
    assert progress.left == progress.rate == ""


def test_values_without_room_are_left_out_last_first(clock):
    progress = trained(clock, 1)
    progress.advance(1, [f"term-{number:02} 0.123" for number in range(40)])
    first, *below = shown(progress, 60)
    assert "2/500" in first
    assert len(below) == module.ROWS
    assert below[0].startswith("  term-00 0.123  term-01 0.123")
    assert below[-1].endswith(" ...")
    assert max(map(len, below)) <= 60


def test_no_time_is_estimated_before_ten_steps(clock):
    assert trained(clock, 9).left == ""
    progress = trained(clock, 10)
    assert progress.left == "1:21:40 left"  # 490 steps of 10 seconds
    assert progress.rate == "3.2 images/s"


def test_the_estimate_follows_the_speed_of_the_last_half_minute(clock):
    progress = trained(clock, 10, 10.0)
    for _ in range(100):
        clock.time += 1.0
        progress.advance(1, ())
    assert progress.left == "6:30 left"  # 390 steps of a second


def test_a_rollback_begins_the_estimate_anew(clock):
    progress = trained(clock, 20)
    progress.advance(-10, ())
    assert (progress.done, progress.rate, progress.left) == (10, "", "")


def test_a_file_gets_a_plain_line_every_ten_seconds(clock):
    console = Console(io.StringIO())
    with console.phase("Opening the data"):
        pass
    with console.progress("Training", 25, 0, "steps", 32) as advance:
        for step in range(25):
            clock.time += 1.0
            advance(1, [f"l1 {step / 100}"] if step % 5 == 0 else ())
    assert console.rich.file.getvalue().splitlines() == [
        "Opening the data",
        "Training 10/25 steps, 32 images/s, 0:15 left, l1 0.05",
        "Training 20/25 steps, 32 images/s, 0:05 left, l1 0.15",
        "Training 25/25 steps, 32 images/s, l1 0.2",
    ]


def test_a_terminal_breaks_lines_between_words_and_leaves_a_path_whole():
    console = terminal(30)
    path = "/" + "folder/" * 8
    console.print(f"a recipe that is trained again may differ by more: {path}")
    console.warn("a recipe that is trained again")
    assert console.rich.file.getvalue().splitlines() == [
        "a recipe that is trained again",
        "may differ by more:",
        path,
        "NOTICE: a recipe that is",
        "trained again",
    ]


def test_a_phase_is_named_in_a_terminal_and_leaves_no_line():
    console = terminal(60)
    with console.phase("Building the networks"):
        pass
    said = console.rich.file.getvalue()
    assert "Building the networks\n" in said
    assert said.endswith("\x1b[1A\x1b[2K")  # up, and the line is erased


SHOWN = {
    "plain, Größe, 顔　画像, 😀, \\x1b": "plain, Größe, 顔　画像, 😀, \\x1b",  # with a wide space
    "\x1b[31m\x9b2J\x07\x7f\r\t": r"\x1b[31m\x9b2J\x07\x7f\r\t",
    "gnp\u202eexe.\u2066\u200b\u2028": r"gnp\u202eexe.\u2066\u200b\u2028",
    "\udcff [bold] :smile: [/]": r"\udcff [bold] :smile: [/]",
}


@pytest.mark.bar("Q4")
@pytest.mark.parametrize("text", SHOWN)
@pytest.mark.parametrize("width", [None, 200])
def test_whatever_prints_a_text_shows_what_no_terminal_obeys(text, width):
    console = Console(io.StringIO()) if width is None else terminal(width)
    console.print(text)
    console.warn(text)
    console.table((text,), [(text,)])
    with console.phase(text):
        pass
    with console.progress(text, 1) as advance:
        advance(1, [text])
    shown = re.sub(r"\x1b\[(?:\?25[lh]|\d?[AK])|[\r\n]", "", console.rich.file.getvalue())
    assert shown.count(SHOWN[text]) >= 6
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u202e\u2066\udcff]", shown)


@pytest.mark.bar("Q3")
def test_a_stream_that_fails_is_silent_and_remembers_why():
    near, far = os.pipe()
    with os.fdopen(far, "w", encoding="ascii") as stream:
        output = guarded(stream)
        print("é", file=output, flush=True)
        assert os.read(near, 100) == b"\\xe9\n"
        assert lost(output) is None
        output.close()  # by a part
        print("more", file=output, flush=True)
        assert os.read(near, 100) == b"more\n"
        os.close(near)
        print("to nobody", file=output, flush=True)
        assert lost(output).errno == errno.EPIPE


@pytest.mark.bar("Q3")
def test_a_full_pipe_that_does_not_wait_gets_everything():
    near, far = os.pipe()
    os.set_blocking(far, False)
    read = []

    def slowly():
        while len(b"".join(read)) < 300_000:
            time.sleep(0.001)
            read.append(os.read(near, 100_000))

    reader = threading.Thread(target=slowly)
    reader.start()
    with os.fdopen(far, "w", encoding="utf-8") as stream:
        print("x" * 299_999, file=guarded(stream), flush=True)
    reader.join(10)
    assert b"".join(read) == b"x" * 299_999 + b"\n"
    os.close(near)


# --- signals, and the end of a training ----------------------------------------------------------


def test_ctrl_c_is_acknowledged_before_the_step_has_ended():
    console = Console(io.StringIO())
    training = SimpleNamespace(stop=0, finished=False)
    threads = threading.active_count()
    with signals.signals(training, console):
        signal.raise_signal(signal.SIGINT)
        end = time.monotonic() + 10
        while not console.rich.file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)  # the step goes on
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert console.rich.file.getvalue() == (
        "SIGINT: stopping after this step; Ctrl-C again ends the program at once, without saving\n"
    )
    assert threading.active_count() <= threads


def test_a_signal_after_the_last_step_is_told_that_all_is_saved():
    console = Console(io.StringIO())
    training = SimpleNamespace(stop=0, finished=True)
    with signals.signals(training, console):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert console.rich.file.getvalue() == (
        "SIGTERM: what is trained is saved already; Ctrl-C ends the program at once\n"
    )


def test_the_summary_has_time_speed_first_and_last_values(tmp_path):
    run = Run(tmp_path)
    run.log({"step": 0, "losses": {}, "notices": ["drawn"]})
    run.log({"step": 1, "losses": {"l1": 0.286, "kl": 0.0007}})
    run.log({"step": 250, "losses": {"l1": 0.1, "kl": 0.02}, "metrics": {"psnr": 18.25}})
    run.log({"step": 500, "losses": {"l1": 0.0741, "kl": 0.03}, "metrics": {"psnr": 17.5}})
    training = SimpleNamespace(
        run=run, done=500, images=16_000, seconds=115.0, engine=SimpleNamespace(steps=500),
        recipe=SimpleNamespace(eval=SimpleNamespace(every=250, better={"psnr": "higher"})),
        measured={},
    )  # fmt: skip
    training.measured = measured_in(run.read_log(), {"psnr": "higher"}, {})
    assert training.measured["psnr"] == Measured(17.5, Measurement(18.25, 250))
    assert ending.summary(training) == [
        "Trained 500 steps in 1 min 55 s, 139 images/s",
        "First and last losses: l1 0.286 -> 0.0741, kl 0.0007 -> 0.03",
        "Last metrics: psnr 17.5 (best 18.25 at step 250)",
    ]
    training.engine.steps = 1000
    assert ending.summary(training)[0] == "Trained 500 of 1,000 steps in 1 min 55 s, 139 images/s"


def test_a_training_that_logged_nothing_has_no_summary(tmp_path):
    assert ending.summary(SimpleNamespace(run=Run(tmp_path), seconds=1.0)) == []
