"""kill -9, whenever: what is resumed ends bit for bit as the run that nobody killed."""

from __future__ import annotations

import json
import random
import time

import pytest

STEPS, EVERY = 30, 5
LENGTH = ["--set", f"train.steps={STEPS}", "--set", f"train.save_every={EVERY}"]
GAN = ["encoder=null", "losses=[hinge]", "sampler=prior", "train.discriminator_steps=2"]
FAMILIES = {"vaegan": [], "gan": [word for part in GAN for word in ("--set", part)]}

# Stops for good at a flush of the n-th checkpoint file, with a sign for the test that kills it.
HOLD = """
import os, time
from pathlib import Path
flushed, fsync = [], os.fsync
def hold(descriptor):
    if "/checkpoints/" in os.readlink(f"/proc/self/fd/{descriptor}") + "/":
        flushed.append(descriptor)
        if len(flushed) == NUMBER:
            Path("held").touch()
            time.sleep(600)
    fsync(descriptor)
os.fsync = hold
"""
# What a program does that knows nothing of unfinished files: it writes in place.
CARELESS = """
from vgx.runs import checkpoint
checkpoint.hidden = lambda path: path
"""


def steps_saved(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-????????"))


def logged(run):
    log = run / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


class Killer:
    """Starts a run, kills it, resumes it, kills it ..., and starts another when it is finished."""

    def __init__(self, forkserver, folder, generator, arguments):
        self.forkserver, self.folder, self.generator, self.arguments = (
            forkserver,
            folder,
            generator,
            arguments,
        )
        self.length = 2.0  # seconds that a run takes, about
        self.finished, self.killed, self.held = [], 0, 0
        self.out = folder / "killed"
        self.out.mkdir()

    @property
    def open(self):
        """The run that is not finished."""
        rest = [path for path in sorted(self.out.iterdir()) if path not in self.finished]
        return rest[-1] if rest and (rest[-1] / "recipe.yaml").exists() else None

    def start(self, hook=""):
        run = self.open
        command = ["resume", run] if run else ["run", *self.arguments, "--out", self.out]
        return self.forkserver.start(self.folder, *command, hook=hook)

    def kill_once(self, held):
        run, sign = self.open, self.folder / "held"
        before = steps_saved(run) if run else []
        if held:
            sign.unlink(missing_ok=True)
            child = self.start(HOLD.replace("NUMBER", str(self.generator.randint(1, 7))))
            child.wait_for(sign)
        else:
            child = self.start()
            time.sleep(self.generator.uniform(0, self.length))
        child.kill()
        code = child.wait()
        assert code in (0, -9), child.err.read_text()
        self.killed += code == -9
        self.held += held
        if code == 0:
            self.finished.append(self.open)
            return
        if (run := self.open) and before:
            after = steps_saved(run)
            assert after[-1] >= before[-1], "a checkpoint was lost"
            assert logged(run) - after[-1] <= EVERY, "more than one interval was lost"

    def finish(self):
        if self.open:
            child = self.start()
            assert child.wait() == 0, child.err.read_text()
            self.finished.append(self.open)
        return self.finished


@pytest.mark.bar("R1")
@pytest.mark.parametrize(
    ("family", "kills", "held"),
    [
        ("vaegan", 3, 1),
        pytest.param("vaegan", 30, 8, marks=pytest.mark.chaos),
        pytest.param("gan", 20, 6, marks=pytest.mark.chaos),
    ],
)
def test_a_killed_run_ends_as_one_that_nobody_killed(
    forkserver, tmp_path, tiny, end_of, record_property, family, kills, held
):
    arguments = [tiny, *LENGTH, *FAMILIES[family]]
    start = time.monotonic()
    forkserver.run(tmp_path, "run", *arguments)
    killer = Killer(forkserver, tmp_path, random.Random(kills), arguments)
    killer.length = time.monotonic() - start
    (whole,) = (tmp_path / "runs").iterdir()
    wanted = end_of(whole)
    assert [line["step"] for line in wanted[2]] == list(range(1, STEPS + 1))
    while killer.killed < kills:
        killer.kill_once(held=killer.held < held)
    assert killer.held >= held
    record_property("cases", killer.killed)
    finished = killer.finish()
    assert finished
    for run in finished:
        assert end_of(run) == wanted
        assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.bar("R1", control="written in place")
def test_a_checkpoint_that_is_written_in_place_would_not_survive(
    forkserver, tmp_path, tiny, record_property
):
    """The negative control: without the rename a killed write is taken for a checkpoint."""
    hook = CARELESS + HOLD.replace("NUMBER", "2")
    child = forkserver.start(tmp_path, "run", tiny, *LENGTH, hook=hook)
    child.wait_for(tmp_path / "held")
    child.kill()
    assert child.wait() == -9
    (run,) = (tmp_path / "runs").iterdir()
    assert steps_saved(run) == [EVERY]
    child = forkserver.run(tmp_path, "resume", run, code=5)
    assert "step-00000005" in child.err.read_text()
    record_property("seen", "a killed write is taken for a checkpoint, and nothing resumes")
