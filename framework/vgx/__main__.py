"""The command line: `vgx`, and `python -m vgx`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from vgx.errors import Interrupted


def interrupt(_: int, __: object) -> NoReturn:
    """Raise the error of Ctrl-C."""
    raise Interrupted


def main() -> None:
    """Run the program and leave with its exit code."""
    # Imports make very many objects, which stay; Python would look for dead ones hundreds of times.
    gc.set_threshold(10_000)
    # Where there is nothing to save; a training listens by itself. Not an exception, for code that
    # is being imported might keep it.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    from vgx.output import guard_streams

    guard_streams()
    from vgx.cli import run_program

    sys.exit(run_program(sys.argv[1:]))


if __name__ == "__main__":
    main()
