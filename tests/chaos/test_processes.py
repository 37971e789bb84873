"""Several processes started by torchrun and by `vgx --processes`: signals, kills, restarts."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from launched import (
    AFTER,
    NOTE_ROWS,
    WAIT,
    alive,
    codes,
    lines,
    rows,
    runs,
    saved,
    steps_done,
    team,
    torchrun,
    trained,
    wait_until,
    with_option,
)
from safetensors.torch import load_file

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(6 * WAIT)]
ENDLESS = ("--set", "train.steps=100000", "--set", "train.draw_every=1000000")
PRIOR = (
    "--set", "train.steps=2",
    "--set", "prior={type: rectified-flow, width: 16, steps: 100000}",
)  # fmt: skip


def gone(pids):
    wait_until(lambda: not any(map(alive, pids)), lambda: f"{pids} are left")


@pytest.mark.bar("P1")
@pytest.mark.parametrize(
    ("start", "number", "whom", "code"),
    [
        (with_option, signal.SIGINT, "launcher", 130),
        (with_option, signal.SIGTERM, 1, 143),
        (with_option, signal.SIGUSR1, "launcher", 138),
        (torchrun, signal.SIGTERM, 1, 1),  # torchrun has codes of its own
        (torchrun, signal.SIGINT, "launcher", 1),
    ],
)
def test_a_signal_stops_all_once(tmp_path, start, number, whom, code):
    launched = start(tmp_path, 2, "run", "tiny", *ENDLESS)
    launched.after(2)
    pids = launched.workers()
    os.kill(launched.process.pid if whom == "launcher" else pids[whom], number)
    assert launched.end() == code, launched.output
    gone(pids.values())
    (run,) = runs(tmp_path)
    step = saved(run)[-1]
    assert lines(run)[-1]["step"] == step
    assert launched.output.count(f"stopped at step {step:,} and saved") == 1
    if start is with_option:
        assert "go on with: vgx resume 1 --processes 2\n" in launched.output
        assert "elastic" not in launched.output
        assert "Traceback" not in launched.output
    assert json.loads((run / "ended.json").read_text())["signal"] == number


@pytest.mark.bar("P1", control="each process stops when it gets the signal")
def test_without_agreeing_the_others_would_be_lost(forkserver, tmp_path, record_property):
    """The negative control."""
    hook = "from vgx.training import state; state.largest = lambda known: [*known]"
    children = team(forkserver, tmp_path, 2, "run", "tiny", *ENDLESS, hook=hook)
    wait_until(lambda: steps_done(tmp_path, 2), children[0].err.read_text)
    children[1].kill(signal.SIGTERM)
    errors = codes(children)[1]
    (run,) = runs(tmp_path)
    assert json.loads((run / "ended.json").read_text())["how"] == "failed", errors
    assert [step for step in saved(run) if step % 5] == []
    record_property("seen", "the first process fails, and the step is not saved")


def got_signal(pid):
    """Whether a signal waits for a process that is stopped."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"ShdPnd:\s*(\w+)", text)[1], 16) > 0


def is_stopped(pid):
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.bar("P1")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_launcher(tmp_path, number):
    """After a second Ctrl-C, and when the launcher is killed."""
    launched = with_option(tmp_path, 2, "run", "tiny", *ENDLESS)
    launched.after(1)
    pids = launched.workers()
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)  # they never answer
    wait_until(lambda: all(map(is_stopped, pids.values())), lambda: launched.output)
    os.kill(launched.process.pid, number)
    if number == signal.SIGINT:
        wait_until(lambda: all(map(got_signal, pids.values())), lambda: launched.output)
        os.kill(launched.process.pid, number)
    assert launched.end() == (130 if number == signal.SIGINT else -number), launched.output
    gone(pids.values())


@pytest.mark.bar("P1")
@pytest.mark.parametrize("start", [with_option, torchrun])
def test_the_second_stage_is_trained_by_the_first_alone_and_stops(tmp_path, start):
    launched = start(tmp_path, 2, "run", "tiny", *PRIOR)
    wait_until(
        lambda: list(tmp_path.glob("runs/*/prior/log.jsonl")) or launched.process.poll(),
        lambda: launched.output,
    )
    pids = launched.workers()
    os.kill(launched.process.pid, signal.SIGINT)
    assert launched.end() == (130 if start is with_option else 1), launched.output
    gone(pids.values())
    assert launched.output.count("SIGINT: the prior is stopped at step ") == 1
    (run,) = runs(tmp_path)
    assert (run / "prior" / "prior.safetensors").exists()


@pytest.mark.bar("P2")
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_starts_again_in_the_same_run_with_the_same_bits(
    forkserver, tmp_path, end_of, rank
):
    """A process is killed after a step that is not saved."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    expected = end_of(trained(forkserver, whole, 2, "run", "tiny"))
    kill = "os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.kill(os.getpid(), 9)"
    hook = AFTER.format(rank=rank, step=8, what=kill)
    launched = torchrun(killed, 2, "run", "tiny", hook=hook, restarts=2)
    assert launched.end() == 0, launched.output
    (run,) = runs(killed)
    assert end_of(run) == expected
    assert "goes on from step 5" in launched.output


@pytest.mark.bar("P2", control="another launch")
def test_what_another_launch_began_is_left_alone(forkserver, tmp_path, record_property):
    """The negative control: a restart that does not know its launch begins another run."""
    trained(forkserver, tmp_path, 1, "run", "tiny", "--set", "train.steps=2")
    again = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "new"}
    children = team(forkserver, tmp_path, 2, "run", "tiny", "--set", "train.steps=2", **again)
    assert codes(children)[0] == [0, 0]
    assert len(runs(tmp_path)) == 2
    record_property("seen", "a second run")


@pytest.mark.bar("P2")
@pytest.mark.parametrize("rank", [0, 1])
def test_vgx_tells_which_process_was_killed(tmp_path, rank):
    launched = with_option(tmp_path, 2, "run", "tiny", *ENDLESS)
    launched.after(6)
    pids = launched.workers()
    os.kill(pids[rank], signal.SIGKILL)
    assert launched.end() == 9, launched.output
    gone(pids.values())
    assert f"vgx: process {rank} of 2 was ended by SIGKILL" in launched.output
    assert saved(*runs(tmp_path))[-1] % 5 == 0


@pytest.mark.bar("P2")
def test_a_silent_process_is_noticed_and_a_first_one_that_takes_long_is_not(forkserver, tmp_path):
    """Longer than the timeout: when it draws, nobody minds; in a step the others end."""
    slow = """
import os, time
from vgx.training import loop
if os.environ["RANK"] == "0":
    draw = loop.draw
    def slowly(*given):
        time.sleep(45)
        return draw(*given)
    loop.draw = slowly
"""
    length = ("--set", "train.steps=2", "--set", "train.draw_every=2")
    children = team(forkserver, tmp_path, 2, "run", "tiny", *length, hook=slow, VGX_TIMEOUT="30")
    ended, errors = codes(children)
    assert ended == [0, 0], errors
    asleep = AFTER.format(rank=1, step=2, what="import time; time.sleep(60)")
    children = team(forkserver, tmp_path, 2, "run", "tiny", *ENDLESS, hook=asleep, VGX_TIMEOUT="10")
    ended, errors = codes(children)
    assert ended == [9, 9], errors
    assert "process 0 of 2 does not reach the others any more: they gave no answer" in errors[0]


@pytest.mark.bar("P3")
def test_a_run_goes_on_with_any_number_of_processes(forkserver, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    for folder in (one, many):
        folder.mkdir()
    plain = ("--set", "train.draw_every=1000")
    whole = trained(
        forkserver, one, 1, "run", "tiny", *plain, "--set", "train.steps=10", hook=NOTE_ROWS
    )
    seen, expected = {}, rows(one, 1)
    for done, size in zip((2, 4, 6, 8, 10), (4, 1, 2, 8, 4), strict=True):
        go_on = ("--resume", runs(many)[-1]) if done > 2 else ("tiny", *plain)
        length = ("--set", f"train.steps={done}")
        run = trained(forkserver, many, size, "run", *go_on, *length, hook=NOTE_ROWS)
        for n, images in rows(many, size).items():
            assert seen.setdefault(n, images) == images == expected[n]
        for rank in range(size):
            (many / f"rows-{rank}.jsonl").unlink()
    assert seen == expected
    assert len(runs(many)) == 1
    for a, b in zip(lines(whole), lines(run), strict=True):
        assert np.allclose([*a["losses"].values()], [*b["losses"].values()], rtol=1e-3), a["step"]
    got = load_file(run / "checkpoints" / "step-00000010" / "model.safetensors")
    for name, tensor in load_file(
        whole / "checkpoints" / "step-00000010" / "model.safetensors"
    ).items():
        assert torch.allclose(got[name], tensor, rtol=5e-3, atol=5e-5), name


@pytest.mark.bar("P3", control="other images")
def test_other_images_would_be_seen(forkserver, tmp_path, record_property):
    """The negative control."""
    plain = ("--set", "train.draw_every=1000", "--set", "train.steps=3")
    whole, other = tmp_path / "whole", tmp_path / "other"
    for folder in (whole, other):
        folder.mkdir()
    expected = lines(trained(forkserver, whole, 1, "run", "tiny", *plain))
    hook = """
from vgx.data.batches import Batches
rows = Batches.rows
Batches.rows = lambda self, n: rows(self, n + 1)
"""
    got = lines(trained(forkserver, other, 2, "run", "tiny", *plain, hook=hook))
    first, second = ([*line["losses"].values()] for line in (expected[-1], got[-1]))
    assert not np.allclose(first, second, rtol=1e-3)
    worst = max(abs(a - b) / abs(a) for a, b in zip(first, second, strict=True))
    record_property("seen", f"losses differ by {worst:.0%}")
