"""Processes of vgx that are started, killed and signalled by the dozen."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


@dataclass
class Child:
    """One `vgx` under way, the leader of its process group."""

    nursery: Nursery
    pid: int
    out: Path
    err: Path

    def kill(self, number=signal.SIGKILL):
        """Send a signal to the whole group; tell whether anybody was left to get it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self):
        """Return the exit code, below zero for a signal; nobody of the group may be left."""
        code = self.nursery.ask({"wait": self.pid})
        deadline = time.monotonic() + 5  # what was killed along with it is gone soon
        while self.kill(0):
            assert time.monotonic() < deadline, "an orphan was left"
            time.sleep(0.01)
        return code

    def wait_for(self, path, seconds=60):
        """Wait until a file is there."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} did not come: {self.err.read_text()}"
            time.sleep(0.002)


@dataclass
class Nursery:
    """Starts children from a process that has imported everything."""

    process: subprocess.Popen = field(
        default_factory=lambda: subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    count: int = 0

    def ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, folder, *arguments, hook="", **environment):
        """Start `vgx ARGUMENTS` in a folder that has its runs and its cache."""
        self.count += 1
        out, err = (folder / f"{name}-{self.count}.txt" for name in ("out", "err"))
        out.touch()
        err.touch()
        places = {"VGX_RUNS": str(folder / "runs"), "VGX_CACHE": str(folder / "cache")}
        order = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "environment": {**places, **environment},
            "hook": hook,
            "out": str(out),
            "err": str(err),
        }
        return Child(self, self.ask(order), out, err)

    def run(self, folder, *arguments, code=0, **options):
        """Run `vgx ARGUMENTS` to its end."""
        child = self.start(folder, *arguments, **options)
        ended = child.wait()
        assert ended == code, (ended, child.out.read_text() + child.err.read_text())
        return child


@pytest.fixture(scope="session")
def nursery():
    made = Nursery()
    made.ask({"warm": True})
    yield made
    made.process.communicate()


def end_of(run):
    """What a run came to: SHA-256 of every file of tensors of its newest checkpoint, and its log.

    The log to the line, without the seconds, which are not the same twice.
    """
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(newest.glob("*.safetensors"))
    }
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return newest.name, sums, [{**line, "seconds": None} for line in lines]


@pytest.fixture(name="end_of", scope="session")
def _end_of():
    return end_of


@pytest.fixture(scope="session")
def tiny():
    return TINY
