"""Storages for studies: a file of SQLite, and a PostgreSQL that the tests start, if it is there."""

from __future__ import annotations

import contextlib
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
    """A PostgreSQL of its own, on a socket in its folder, and on addresses if it is given some."""

    programs: Path
    folder: Path
    listen: str = ""
    password: str = ""
    inside: tuple[str, ...] = ()  # a command that starts another one, as nobody

    @property
    def url(self):
        return f"postgresql://vgx@/postgres?host={self.folder}"

    def call(self, program, *arguments):
        # It refuses to be run by root.
        root = os.geteuid() == 0 and not self.inside
        user = {"user": "nobody", "group": "nogroup"} if root else {}
        done = subprocess.run(
            [*self.inside, self.programs / program, *map(str, arguments)], cwd=self.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False, **user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def make(self):
        how = ["-A", "trust"]
        if self.password:
            (self.folder / "password").write_text(self.password)
            how = ["-A", "scram-sha-256", f"--pwfile={self.folder / 'password'}"]
        self.call("initdb", "-D", self.folder / "data", "-U", "vgx", *how, "--no-sync")
        if self.listen:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all vgx samenet scram-sha-256\n")

    def start(self):
        settings = f"-c listen_addresses='{self.listen}' -k {self.folder} -c fsync=off"
        log = self.folder / "log"
        self.call("pg_ctl", "-D", self.folder / "data", "-o", settings, "-l", log, "-w", "start")

    def stop(self):
        self.call("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")


@contextlib.contextmanager
def running(**options):
    """Start a PostgreSQL for the block; the test is skipped where there is none."""
    found = shutil.which("initdb")
    programs = Path(found).resolve().parent if found else next(iter(PROGRAMS), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # A socket's path may have 107 bytes, and pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="vgx-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        server = Server(programs, Path(folder), **options)
        server.make()
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres():
    with running() as server:
        yield server


@pytest.fixture
def postgres_at():
    """A function that starts a PostgreSQL with a password on some addresses, for a block."""
    return lambda password, listen, inside: running(password=password, listen=listen, inside=inside)


@pytest.fixture(params=["sqlite", "postgres"])
def server(request, tmp_path, monkeypatch):
    """A place for studies: None is a file below VGX_SWEEPS, else the address of a server."""
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path / "sweeps"))
    return request.getfixturevalue("postgres").url if request.param == "postgres" else None


@pytest.fixture
def study_name(tmp_path):
    return f"study-{tmp_path.name[-40:]}-{time.monotonic_ns()}"[:64]
