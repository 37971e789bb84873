"""Ctrl-C and kill: everything is saved, and the resumed run ends as if nothing had happened."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
LONG = ("--set", "train.steps=60", "--set", "train.save_every=1000")


def wait_for_step(run, number):
    """Wait until a run's log has a line of that step or a later one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = run / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        if lines and json.loads(lines[-1])["step"] >= number:
            return
        time.sleep(0.02)
    pytest.fail(f"{run} did not reach step {number}")


def end(run, step=60):
    folder = run / "checkpoints" / f"step-{step:08}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tiny_run):
    """A run of 60 steps that nobody stops, made once."""
    program, _, _ = tiny_run
    program("run", TINY, *LONG, "--out", program.folder / "whole")
    return program.folder / "whole" / "0001-tiny"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.chaos),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.chaos),
    ],
)
def test_a_run_that_was_stopped_and_resumed_ends_bit_for_bit_alike(vgx_program, whole, kind, code):
    stopped = vgx_program.folder / "runs" / "0001-tiny"
    child = vgx_program.start("run", TINY, *LONG)
    wait_for_step(stopped, 5)
    child.kill(kind)
    assert child.wait() == code, child.err.read_text()
    out, err = child.out.read_text(), child.err.read_text()
    assert "Traceback" not in err
    assert f"{kind.name}: stopping after this step; Ctrl-C" in out
    assert re.search(r"^Trained \d+ of 60 steps in ", out, re.MULTILINE)
    assert "go on with: vgx resume 1\n" in err
    (saved,) = (stopped / "checkpoints").iterdir()
    assert 5 <= int(saved.name.partition("-")[2]) < 60

    vgx_program("resume")
    assert len(end(whole)) == 3
    assert end(stopped) == end(whole)
    losses = [
        [json.loads(line)["losses"] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (whole, stopped)
    ]
    assert losses[0] == losses[1]
    pictures = [
        {path.name: path.read_bytes() for path in (run / "samples").iterdir()}
        for run in (whole, stopped)
    ]
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_a_finished_run_goes_on_when_it_is_given_more_steps(tiny_run):
    program, _, run = tiny_run
    out = program.folder / "longer"
    shutil.copytree(run, out / "0001-tiny")
    program("run", "--resume", out / "0001-tiny", "--set", "train.steps=25")
    program("run", TINY, "--set", "train.steps=25", "--out", out)
    assert end(out / "0001-tiny", 25) == end(out / "0002-tiny", 25)
    assert "steps: 20" in (run / "recipe.yaml").read_text()
    assert "steps: 25" in (out / "0001-tiny" / "recipe.yaml").read_text()


def test_a_resume_with_another_recipe_is_refused(tiny_run, vgx_here):
    _, _, run = tiny_run
    code, _, err = vgx_here("run", "--resume", run, "--set", "train.batch=4")
    assert code == 2
    assert "train.batch: 8 -> 4" in err
