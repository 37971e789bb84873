"""Several processes of one training, as a launcher starts them.

`team` forks them from the forkserver, with the settings of a launcher and without one: this takes a
second where torchrun takes ten. `Launcher` is torchrun, or `vgx --processes`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

WAIT = 240  # seconds, at most: this machine may be busy
# Each process notes the images of each minibatch.
NOTE_ROWS = """
import json
from vgx.data.batches import Batches
own_rows = Batches.own_rows
def noting(self, number, pieces):
    from vgx.distributed.state import group
    own = own_rows(self, number, pieces)
    with open(f"rows-{group().rank}.jsonl", "a") as file:
        file.write(json.dumps([number, own.tolist()]) + chr(10))
    return own
Batches.own_rows = noting
"""
# Does something in one process, after a step.
AFTER = """
import os
from vgx.training.state import Training
if os.environ.get("RANK") == "{rank}":
    step = Training.step
    def stepping(self):
        terms = step(self)
        if self.done == {step}:
            {what}
        return terms
    Training.step = stepping
"""


def port():
    """A port of this machine that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def team(forkserver, folder, size, *arguments, hook="", folders=None, pages=False, **environment):
    """Start `vgx ARGUMENTS` in so many processes."""
    given = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    return [
        forkserver.start(
            folders[rank] if folders else folder, *arguments, hook=hook, pages=pages,
            **{**given, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment},
        )
        for rank in range(size)
    ]  # fmt: skip


def codes(children):
    """The exit codes of a team, and what its processes wrote to standard error."""
    return [child.wait() for child in children], [child.err.read_text() for child in children]


def trained(forkserver, folder, size, *arguments, hook=""):
    """Train in so many processes to the end, with the page; return the newest run."""
    children = team(forkserver, folder, size, *arguments, hook=hook, pages=True)
    ended, errors = codes(children)
    assert ended == [0] * size, errors
    return runs(folder)[-1]


def runs(folder):
    return sorted((folder / "runs").glob("[0-9]*"))


def lines(run):
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def saved(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


def wait_until(condition, what, seconds=WAIT):
    """Wait until something is true, and return it."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, f"waited in vain: {what()}"
        time.sleep(0.02)
    return value


def steps_done(folder, count):
    """Whether the newest run has logged so many steps."""
    found = runs(folder)
    return bool(found) and len(lines(found[-1])) >= count


def rows(folder, size):
    """The images of each minibatch, of all its processes."""
    every = {}
    for rank in range(size):
        for line in (folder / f"rows-{rank}.jsonl").read_text().splitlines():
            number, own = json.loads(line)
            every.setdefault(number, {})[rank] = own
    assert all(len(parts) == size for parts in every.values())
    return {n: [row for r in range(size) for row in parts[r]] for n, parts in every.items()}


@dataclass
class Launcher:
    """torchrun, or `vgx --processes`, under way."""

    folder: Path
    command: list[str]
    hook: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        places = {"VGX_RUNS": str(self.folder / "runs"), "VGX_CACHE": str(self.folder / "cache")}
        self.out, self.err = (self.folder / f"{name}.txt" for name in ("out", "err"))
        with self.out.open("a") as out, self.err.open("a") as err:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
                env={**os.environ, **places, "VGX_HOOK": self.hook, "COLUMNS": "120",
                     **self.environment},
            )  # fmt: skip

    @property
    def output(self):
        return self.out.read_text() + self.err.read_text()

    def workers(self, size=2):
        """The numbers of the processes that it started, by their rank, when they are there."""
        return wait_until(
            lambda: len(found := self._workers()) == size and found, lambda: self.output
        )

    def _workers(self):
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in map(int, task.read_text().split()):
                text = Path(f"/proc/{pid}/environ").read_text()
                if rank := re.search(r"(?:^|\0)RANK=(\d+)", text):
                    found[int(rank[1])] = pid
        return found

    def after(self, count):
        """Wait until the newest run has logged so many steps."""
        wait_until(
            lambda: steps_done(self.folder, count) or self.process.poll() is not None,
            lambda: self.output,
        )
        assert self.process.poll() is None, self.output

    def end(self):
        """Wait for its end; return its exit code. Nobody may be left."""
        return self.process.wait(WAIT)


def torchrun(folder, size, *arguments, restarts=0, hook="", **environment):
    """Start `torchrun ... vgx ARGUMENTS`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(size), "--max-restarts", str(restarts)]
    return Launcher(
        folder, [*command, str(Path(__file__)), *map(str, arguments)], hook, environment
    )


def with_option(folder, size, *arguments, **environment):
    """Start `vgx ARGUMENTS --processes N`."""
    command = [sys.executable, "-m", "vgx", *map(str, arguments), "--processes", str(size)]
    return Launcher(folder, command, environment=environment)


def alive(pid):
    """Whether a process works; one whose parent was killed may be left as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exec(os.environ["VGX_HOOK"], {})
    from vgx.__main__ import main

    main()
