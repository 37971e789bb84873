"""What the thorough tests share: processes that are watched, file systems, ends of runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from steps import TIMES

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


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
