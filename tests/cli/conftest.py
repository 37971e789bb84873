"""The program in a process of its own, with folders of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from forkserver import ForkServer

ROOT = Path(__file__).parents[2]


@dataclass
class Program:
    """Starts `vgx` in a folder; runs and cache lie there. Trainings write a page if they must."""

    forkserver: ForkServer
    folder: Path
    pages: bool = False

    def start(self, *arguments):
        return self.forkserver.start(self.folder, *arguments, pages=self.pages)

    def __call__(self, *arguments, code=0):
        child = self.forkserver.run(self.folder, *arguments, code=code, pages=self.pages)
        said = child.out.read_text(), child.err.read_text()
        return subprocess.CompletedProcess(arguments, code, *said)


@dataclass
class FreshProgram:
    """Starts `python -m vgx` as a person does: a Python of its own, which imports everything."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self):
        places = {"VGX_RUNS": str(self.folder / "runs"), "VGX_CACHE": str(self.folder / "cache")}
        plain = {"COLUMNS": "120", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **places, **plain, **self.settings}

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "vgx", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def vgx_program(forkserver, tmp_path):
    return Program(forkserver, tmp_path)


@pytest.fixture
def fresh_program(tmp_path):
    return FreshProgram(tmp_path)


@pytest.fixture(scope="session")
def program_in(forkserver):
    """For a run that several tests share: `program_in(folder)` starts the program there."""
    return partial(Program, forkserver)


@pytest.fixture
def vgx_here(tmp_path, monkeypatch, capfd):
    """Run a command line in this process, which spares the imports: (exit code, out, err)."""
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        code = run_program([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="session")
def tiny_run(program_in, tmp_path_factory):
    """A finished run of the tiny recipe: (program, what it printed, run directory)."""
    program = program_in(tmp_path_factory.mktemp("tiny"), pages=True)
    done = program("run", ROOT / "recipes" / "tiny.yaml")
    (run,) = (program.folder / "runs").iterdir()
    return program, done, run


@pytest.fixture
def open_page(browser):
    """Open pages from the disk; whatever one complains of, or asks for, is a fault."""
    opened = []

    def open_file(file):
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        faults, requests = [], []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append((page, file, faults, requests))
        page.goto(f"file://{file}")
        page.wait_for_selector(".chart svg")
        return page

    yield open_file
    for page, file, faults, requests in opened:
        assert faults == []
        assert [url for url in requests if not url.startswith("data:")] == [f"file://{file}"]
        page.close()
