"""Storages for studies: a file of SQLite, and a PostgreSQL that the tests start, if it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # of Debian, off the PATH


@dataclass
class Server:
    """A PostgreSQL of its own, on a socket in its folder: no network."""

    programs: Path
    folder: Path

    @property
    def url(self):
        return f"postgresql://vgx@/postgres?host={self.folder}"

    def call(self, program, *arguments):
        # It refuses to be run by root.
        user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        done = subprocess.run(
            [self.programs / program, *map(str, arguments)], cwd=self.folder, timeout=120,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, **user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def make(self):
        self.call("initdb", "-D", self.folder / "data", "-U", "vgx", "-A", "trust", "--no-sync")

    def start(self):
        settings = f"-c listen_addresses='' -k {self.folder} -c fsync=off"
        log = self.folder / "log"
        self.call("pg_ctl", "-D", self.folder / "data", "-o", settings, "-l", log, "-w", "start")

    def stop(self):
        self.call("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")


@pytest.fixture(scope="session")
def postgres():
    found = shutil.which("initdb")
    programs = Path(found).parent if found else next(iter(PROGRAMS), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # A socket's path may have 107 bytes, and pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="vgx-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        server = Server(programs, Path(folder))
        server.make()
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def server(request, tmp_path, monkeypatch):
    """A place for studies: None is a file below VGX_SWEEPS, else the address of a server."""
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path / "sweeps"))
    return request.getfixturevalue("postgres").url if request.param == "postgres" else None


@pytest.fixture
def study_name(tmp_path):
    return f"study-{tmp_path.name[-40:]}-{time.monotonic_ns()}"[:64]
