"""Starting and ending: the time of commands before they do anything, and after the last step."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tables import ROOT, spread, table

CHECKED = "import vgx, vgx.training.session; vgx.discover()"
# A run until a function is called. The first turn decodes the images, so they are in the store.
UNTIL = """
import os, sys
from vgx.__main__ import main
sys.argv = ["vgx", "run", "recipes/tiny.yaml"]
def end(*_): os._exit(0)
from vgx.training import ending, loop
%s = end
try:
    main()
finally:
    os._exit(1)  # the function was not called
"""
FIRST_STEP, LAST_STEP = UNTIL % "loop.Training.step", UNTIL % "ending._close"


ABOUT = """Most of the time before the first step is `import torch`. A run of `tiny` is shorter than
in the first edition; help, `vgx plugins` and `vgx check` take longer, since they load more plugins
and parts. Help loads every plugin for the commands that it adds, but not its parts; in the first
edition it loaded no plugin."""
# Whole commands: functions of the first edition had other names.
WHOLE = (
    "`vgx --help`", "`vgx plugins`", "`vgx check tiny`", "`vgx run tiny` to its end, with the page",
)  # fmt: skip


def commands(python: str) -> dict[str, list[str]]:
    program = [python, "-m", "vgx"]
    return {
        "`vgx --help`": [*program, "--help"],
        "`vgx plugins`": [*program, "plugins"],
        "`import torch`": [python, "-c", "import torch"],
        "`import torch, timm`": [python, "-c", "import torch, timm"],
        "the imports of `vgx check`": [python, "-c", CHECKED],
        "`vgx check tiny`": [*program, "check", "recipes/tiny.yaml"],
        "`vgx run tiny` to its first step": [python, "-c", FIRST_STEP],
        "`vgx run tiny` to the checkpoint of its last step": [python, "-c", LAST_STEP],
        "`vgx run tiny` to its end, with the page": [*program, "run", "recipes/tiny.yaml"],
    }


def cpu_seconds(command: Sequence[str], folder: Path, made: Path) -> float:
    """Run a command in a folder; what it makes goes into the folder `made`."""
    places = {"VGX_CACHE": str(made), "VGX_RUNS": str(made / "runs")}
    # Each program imports the vgx that is installed for it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env={**environment, **places}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def starting(options: argparse.Namespace) -> str:
    versions = {"CPU seconds": (ROOT, sys.executable)}
    if options.first_edition:
        python = options.first_edition.absolute() / ".venv" / "bin" / "python"
        versions = {"first edition, CPU seconds": (options.first_edition, str(python)), **versions}
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in commands(sys.executable)}
    with tempfile.TemporaryDirectory() as made:
        for turn in range(options.rounds + 1):
            for version, (folder, python) in versions.items():
                for name, command in commands(python).items():
                    if folder == ROOT or name in WHOLE:
                        seconds = cpu_seconds(command, folder, Path(made) / version)
                        if turn:
                            spent[name].setdefault(version, []).append(seconds)
    rows = [
        [name, *(spread(values[version]) if version in values else "-" for version in versions)]
        for name, values in spent.items()
    ]
    return f"## Starting\n\n{ABOUT}\n\n{table(['command', *versions], rows)}"
