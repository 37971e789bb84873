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
from steps import TIMES

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


class Guard:
    """The program in a process of its own that is watched."""

    def __init__(self, folder):
        self.folder = folder
        places = {"VGX_RUNS": str(folder / "runs"), "VGX_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("guard.py"))],
            cwd=folder,
            env={**os.environ, **places, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments):
        """Run a command line: (exit code, messages, what was done that must not be)."""
        answer = self.ask(*arguments)
        assert "Traceback" not in answer["err"], answer["err"]
        return answer["code"], answer["err"], answer["events"]

    def ask(self, *arguments):
        """Run a command line, and return all that the process says of it."""
        self.process.stdin.write(json.dumps(list(map(str, arguments))) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    made = Guard(tmp_path_factory.mktemp("guarded"))
    yield made
    made.process.communicate()


class Mounts:
    """File systems that a test mounts. For a user who may not mount any, the test is skipped."""

    def __init__(self):
        self.folders = []

    def __call__(self, folder, options, source=None):
        """Mount an empty file system of the memory, or the folder `source` once more."""
        what = ["-t", "tmpfs", "tmpfs"] if source is None else [str(source)]
        command = ["mount", "-o", options, *what, str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a file system here")
        self.folders.append(folder)

    def change(self, folder, options):
        """Change the options of a file system that was mounted here."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def mount():
    made = Mounts()
    yield made
    for folder in made.folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def end_of(run):
    """What a run came to: SHA-256 of every file of tensors of its newest checkpoint, and its log.

    The log to the line, without its times, which are not the same twice.
    """
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(newest.glob("*.safetensors"))
    }
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return newest.name, sums, [{**line, **dict.fromkeys(TIMES)} for line in lines]


@pytest.fixture(name="end_of", scope="session")
def _end_of():
    return end_of


@pytest.fixture(scope="session")
def tiny():
    return TINY
