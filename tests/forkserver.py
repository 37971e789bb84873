"""Processes of vgx that are started, killed and signalled by the dozen.

A start imports PyTorch and all parts, which takes longer than what most tests start it for. So one
process for each worker imports everything, and forks: each child is a `vgx` of its own, with its
own folder, environment and output, and leads a process group, as a command at a terminal does.

Orders come as lines of JSON on standard input; every one is answered with a line.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

# A training ends without the page of its run, which takes as long as a short training.
NO_PAGE = "from vgx.training import ending\nending.call_plugins = lambda *_: None\n"


@dataclass
class Child:
    """One `vgx` under way, the leader of its process group."""

    forkserver: ForkServer
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
        code = self.forkserver.ask({"wait": self.pid})
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
class ForkServer:
    """Starts children from a process that has imported everything."""

    process: subprocess.Popen = field(
        default_factory=lambda: subprocess.Popen(
            [sys.executable, __file__],
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

    def start(self, folder, *arguments, hook="", pages=True, **environment):
        """Start `vgx ARGUMENTS` in a folder that has its runs and its cache."""
        self.count += 1
        out, err = (folder / f"{name}-{self.count}.txt" for name in ("out", "err"))
        out.touch()
        err.touch()
        places = {"VGX_RUNS": str(folder / "runs"), "VGX_CACHE": str(folder / "cache")}
        order = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "environment": {**os.environ, "COLUMNS": "120", **places, **environment},
            "hook": hook if pages else NO_PAGE + hook,
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


def live(order):
    """Be a `vgx` that was started from a shell, and end with its exit code."""
    from vgx.__main__ import main

    os.setsid()
    # Tests that were started in the background ignore Ctrl-C, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(("/dev/null", order["out"], order["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags, 0o644), number)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # It reads the environment when it is imported, and timm has imported it already.
    for name in [each for each in sys.modules if each.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
    sys.argv = ["vgx", *order["arguments"]]
    code = 0
    try:
        exec(order["hook"], {})
        main()
    except SystemExit as end:
        code = end.code or 0
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve():
    import_all()
    for line in sys.stdin:
        order = json.loads(line)
        if "warm" in order:
            answer = 0
        elif "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                live(order)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def import_all():
    """Import what a child would import, and draw the images that most of them train on."""
    import distributions
    import faces
    import timm
    import torchvision.utils
    from PIL import Image

    import vgx
    import vgx.__main__
    import vgx_builtin.pretrained
    import vgx_report.run_page
    from vgx.cli import inspect
    from vgx.training import session

    distributions.remember()
    vgx.discover()
    faces.remember()
    faces.draw_tiny()
    Image.init()  # which imports a module for each format
    # A collection would look at all of this, and so copy its pages for each child.
    gc.collect()
    gc.freeze()
    del timm, torchvision, vgx_builtin, vgx_report, inspect, session


if __name__ == "__main__":
    assert Path("/proc/self").exists()
    serve()
