"""The command line: `vgx`, and `python -m vgx`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program and leave with its exit code."""
    from vgx.cli import run_program

    sys.exit(run_program(sys.argv[1:]))


if __name__ == "__main__":
    main()
