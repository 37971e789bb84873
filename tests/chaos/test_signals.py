"""SIGTERM, SIGINT and SIGUSR1 to the whole group, whenever: saved, the exit code, no orphan."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest
from pace import within

LENGTH = ["--set", "train.steps=40", "--set", "train.save_every=1000"]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}

# Makes one function slow, with a sign that it has begun.
SLOW = """
import time
from pathlib import Path
from vgx.{package} import {module}
does = {place}.{name}
def slowly(*given, **options):
    Path("begun").touch()
    time.sleep({seconds})
    return does(*given, **options)
{place}.{name} = slowly
"""
PLACES = {
    "before the first step": ("training", "environment", "room", 0),
    "in a step": ("training", "loop.Training", "step", 1),
    "while drawing": ("training", "loop", "draw", 1),
    "while saving": ("runs", "checkpoint", "tensor_bytes", 40),
}
# The negative control: nobody listens.
DEAF = (
    "from contextlib import nullcontext; from vgx.training import session; "
    "session.signals = lambda *_: nullcontext()"
)


def slow(place, seconds=0.4):
    package, where, name, _ = PLACES[place]
    module = where.partition(".")[0]
    return SLOW.format(package=package, module=module, place=where, name=name, seconds=seconds)


def runs(folder):
    return sorted((folder / "runs").glob("*"))


def lines(run):
    log = run / "log.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def steps_saved(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(forkserver, tmp_path_factory, end_of, tiny):
    """What the run comes to that nobody stops, and how long it takes."""
    folder = tmp_path_factory.mktemp("whole")
    start = time.monotonic()
    forkserver.run(folder, "run", tiny, *LENGTH)
    return end_of(*runs(folder)), time.monotonic() - start


@pytest.mark.bar("R6")
@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("before the first step", signal.SIGTERM),
        ("in a step", signal.SIGINT),
        ("while drawing", signal.SIGTERM),
        ("while saving", signal.SIGINT),
        ("in a step", signal.SIGUSR1),  # how SLURM warns
    ],
)
def test_wherever_the_signal_comes_the_step_is_saved(
    forkserver, tmp_path, tiny, whole, end_of, place, number
):
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=slow(place))
    child.wait_for(tmp_path / "begun")
    child.kill(number)
    start = time.monotonic()
    assert child.wait() == CODES[number], child.err.read_text()
    assert within(time.monotonic() - start, 6)  # a step, a picture and three files, all made slow
    (run,) = runs(tmp_path)
    assert steps_saved(run) == [PLACES[place][3]]
    message = " ".join(child.err.read_text().split())
    assert "Traceback" not in message
    assert f"{signal.Signals(number).name}: stopped at step {PLACES[place][3]}" in message
    assert "go on with: vgx resume" in message
    forkserver.run(tmp_path, "resume", run, pages=False)
    assert end_of(run) == whole[0]


@pytest.mark.bar("R6", control="signals are ignored")
def test_without_listening_nothing_would_be_saved(forkserver, tmp_path, tiny, record_property):
    """The negative control."""
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=slow("in a step") + DEAF)
    child.wait_for(tmp_path / "begun")
    child.kill(signal.SIGTERM)
    assert child.wait() == 143
    assert steps_saved(*runs(tmp_path)) == []
    record_property("seen", "0 of 1 saved")


@pytest.mark.bar("R6")
@pytest.mark.parametrize("place", PLACES)
def test_a_second_ctrl_c_ends_at_once(forkserver, tmp_path, tiny, place):
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=slow(place, 60))
    child.wait_for(tmp_path / "begun")
    child.kill(signal.SIGINT)
    time.sleep(0.3)
    start = time.monotonic()
    child.kill(signal.SIGINT)
    assert child.wait() == 130
    assert time.monotonic() - start < 30  # what it was doing takes twice as long
    assert child.err.read_text() == "vgx: stopped\n"


@pytest.mark.bar("R6")
def test_a_second_sigterm_waits_for_the_save(forkserver, tmp_path, tiny):
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=slow("while drawing"))
    child.wait_for(tmp_path / "begun")
    for _ in range(3):
        child.kill(signal.SIGTERM)
        time.sleep(0.1)
    assert child.wait() == 143
    assert steps_saved(*runs(tmp_path)) == [1]


@pytest.mark.bar("R6")
@pytest.mark.parametrize("number", CODES)
def test_before_there_is_a_run_nothing_is_left(forkserver, tmp_path, tiny, number):
    hook = SLOW.format(
        package="training", module="preparing", place="preparing", name="examine", seconds=60
    )
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=hook)
    child.wait_for(tmp_path / "begun")
    child.kill(number)
    assert child.wait() == CODES[number]
    assert runs(tmp_path) == []
    assert "Traceback" not in child.err.read_text()


@pytest.mark.bar("R6")
@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(40))
def test_whenever_the_signal_comes_the_run_ends_alike(
    forkserver, tmp_path, tiny, whole, end_of, seed
):
    generator = random.Random(seed)
    number = generator.choice([*CODES])
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH)
    time.sleep(generator.uniform(0, whole[1]))
    child.kill(number)
    start = time.monotonic()
    code = child.wait()
    assert within(time.monotonic() - start, 4)
    assert "Traceback" not in child.err.read_text()
    begun = [run for run in runs(tmp_path) if (run / "recipe.yaml").exists()]
    assert code in ((CODES[number], -number) if len(begun) == 0 else (CODES[number], 0))
    if not begun:
        return
    (run,) = begun
    reached = json.loads(lines(run)[-1])["step"] if lines(run) else 0
    assert steps_saved(run)[-1] == reached
    forkserver.run(tmp_path, "resume", run)
    assert end_of(run) == whole[0]
