"""The program where things are not as usual: no reader, no terminal, no letters, no home."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
ASCII = {
    "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "",
}  # fmt: skip


AT_TERMINAL = """
import os
for number in range(3):
    os.dup2(os.open({path!r}, os.O_RDWR), number)
"""


def shell(program, text, **settings):
    """Run a line of shell in the program's folder, in which `vgx` is the program."""
    folder = program.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "vgx").write_text(f'#!/bin/sh\nexec {sys.executable} -m vgx "$@"\n')
    (folder / "vgx").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", text],
        cwd=program.folder,
        env={**program.environment, "PATH": path, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.bar("Q2")
@pytest.mark.parametrize("command", ["parts", pytest.param("schema", marks=pytest.mark.chaos)])
def test_a_reader_that_leaves_is_no_error_of_anybody(fresh_program, command):
    done = shell(fresh_program, f"vgx {command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.bar("Q2")
def test_a_reader_that_leaves_ends_no_training(fresh_program):
    done = shell(fresh_program, f"vgx run {TINY} | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert done.stderr == ""
    run = fresh_program.folder / "runs" / "0001-tiny"
    assert (run / "checkpoints" / "step-00000020" / "manifest.json").is_file()
    assert (run / "report.html").is_file()


@pytest.mark.bar("Q2")
@pytest.mark.parametrize(
    "closed",
    [
        pytest.param("<&-", marks=pytest.mark.chaos),
        pytest.param(">&-", marks=pytest.mark.chaos),
        pytest.param("2>&-", marks=pytest.mark.chaos),
        "<&- >&- 2>&-",
    ],
)
def test_closed_streams_are_no_error(fresh_program, closed):
    assert shell(fresh_program, f"vgx parts loss {closed}").returncode == 0
    assert shell(fresh_program, f"vgx check absent.yaml {closed}").returncode == 2


@pytest.mark.bar("Q2")
@pytest.mark.parametrize("command", ["schema", "list"])
def test_a_full_disk_behind_standard_output_is_a_storage_error(fresh_program, command):
    done = shell(fresh_program, f"vgx {command} > /dev/full")
    assert done.returncode == 5
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.bar("Q2")
def test_letters_that_the_terminal_lacks_are_written_by_number(fresh_program):
    folder = fresh_program.folder / "Ünïcode 😀 with spaces"
    folder.mkdir()
    (folder / "reçipe.yaml").write_text(TINY.read_text(), encoding="utf-8")
    line = "vgx run */re*.yaml --set train.steps=1 --out *with*/ | cat; exit ${PIPESTATUS[0]}"
    done = shell(fresh_program, line, **ASCII)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "0001-tiny" / "checkpoints" / "step-00000001").is_dir()
    assert "Picture " in done.stdout
    done = shell(fresh_program, "vgx check */absent.yaml", **ASCII)
    assert done.returncode == 2
    assert "absent.yaml: No such file" in done.stderr


@pytest.mark.bar("Q2")
@pytest.mark.chaos
@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_a_home_that_cannot_be_written_is_not_needed_to_look(fresh_program, home):
    done = shell(fresh_program, f"vgx check {TINY}", HOME=home, XDG_CACHE_HOME="", VGX_CACHE="")
    assert done.returncode == 0, done.stderr
    assert ("vgx run would end here" in done.stdout) == (home == "/dev/null")
    done = shell(fresh_program, f"vgx run {TINY}", HOME=home, XDG_CACHE_HOME="", VGX_CACHE="")
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 10


@pytest.mark.bar("Q2")
@pytest.mark.parametrize(
    "place", ["/dev/null/runs", pytest.param("/proc/runs", marks=pytest.mark.chaos)]
)
def test_a_place_for_runs_that_cannot_be_written_is_said(fresh_program, place):
    done = shell(fresh_program, f"vgx run {TINY} --out {place}")
    assert done.returncode == 5
    assert place in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.bar("Q2")
def test_at_a_terminal_the_same_is_said_in_colour(fresh_program):
    """A terminal of one's own: nothing breaks where lines are drawn over."""
    mine, its = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vgx", "parts", "sampler"],
            cwd=fresh_program.folder,
            env={**fresh_program.environment, "TERM": "xterm", "COLUMNS": "100"},
            stdin=its,
            stdout=its,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = b""
        while b"weighted-mix" not in text:  # a terminal gives a few thousand characters at once
            assert select.select([mine], [], [], 5)[0], text.decode()
            text += os.read(mine, 100_000)
    finally:
        os.close(mine)
        os.close(its)


@pytest.mark.bar("Q2")
@pytest.mark.parametrize("columns", [60, pytest.param(80, marks=pytest.mark.chaos)])
def test_a_narrow_terminal_shows_the_whole_progress_and_its_end_stays(
    forkserver, tmp_path, columns
):
    mine, its = pty.openpty()
    words = ("run", TINY, "--set", "train.steps=60", "--set", "train.draw_every=60")
    settings = {"TERM": "xterm", "COLUMNS": str(columns)}
    hook = AT_TERMINAL.format(path=os.ttyname(its))
    child = forkserver.start(tmp_path, *words, hook=hook, **settings)
    shown = read(mine)  # the program has it open now
    os.close(its)
    while more := read(mine):
        shown += more
    os.close(mine)
    assert child.wait() == 0, shown.decode()
    text = re.sub(r"\x1b\[[\d;?]*\w", "", shown.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    frames = [line for line in lines if line.startswith("Training")]
    whole = r"Training \S+ +\d+/60 +[\d.,]+ images/s +\d+:\d\d left"
    assert any(re.fullmatch(whole, line) for line in frames)
    assert all(len(line) <= columns for line in frames)
    assert any(line.startswith("Trained 60 steps in ") for line in lines)
    assert any("Building the networks" in line for line in lines)


def read(terminal):
    try:
        return os.read(terminal, 100_000)
    except OSError:  # its program has ended
        return b""


@pytest.mark.bar("Q2", control="a program that ignores a closed output is noticed")
def test_these_tests_see_a_traceback(fresh_program):
    """The control: a program that is careless about its reader is seen to be."""
    done = shell(fresh_program, f"{sys.executable} -c 'while True: print(1)' | head -1")
    assert "Traceback" in done.stderr


@pytest.mark.bar("Q2")
def test_python_without_docstrings_and_asserts_trains_as_well(fresh_program):
    done = shell(fresh_program, f"vgx run {TINY} --set train.steps=1", PYTHONOPTIMIZE="2")
    assert done.returncode == 0, done.stderr
    assert (fresh_program.folder / "runs" / "0001-tiny" / "report.html").is_file()
