"""A process that has imported everything and forks: each child is a `vgx` of its own.

Orders come as lines of JSON on standard input; every one is answered with a line. A child leads a
process group of its own, as a command at a terminal does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torchvision.utils  # noqa: F401 - what a child would import is imported once

from vgx.__main__ import main
from vgx.cli import inspect as inspecting  # noqa: F401
from vgx.training import session as training  # noqa: F401


def live(order):
    """Be a `vgx` that was started from a shell, and end with its exit code."""
    os.setsid()
    # Tests that were started in the background ignore Ctrl-C, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(("/dev/null", order["out"], order["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags, 0o644), number)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
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


if __name__ == "__main__":
    assert Path("/proc/self").exists()
    serve()
