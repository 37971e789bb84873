"""Starting: the time of a command before it does anything."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tables import ROOT, spread, table

CHECKED = "import vgx, vgx.training.session; vgx.discover()"
# The images are in the store already: the turn for warming up decodes them.
FIRST_STEP = """
import os
from vgx.training import loop
loop.Training.step = lambda _: os._exit(0)
from vgx.cli import run_program
run_program(["run", "recipes/tiny.yaml", "--out", os.environ["VGX_CACHE"] + "/runs"])
os._exit(1)
"""


def cpu_seconds(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def starting(options: argparse.Namespace) -> str:
    python = [sys.executable, "-m", "vgx"]
    commands = {
        "`vgx --help`": [*python, "--help"],
        "`vgx plugins`": [*python, "plugins"],
        "`import torch, timm`": [sys.executable, "-c", "import torch, timm"],
        "the imports of `vgx check`": [sys.executable, "-c", CHECKED],
        "`vgx check recipes/tiny.yaml`": [*python, "check", "recipes/tiny.yaml"],
        "`vgx run recipes/tiny.yaml` to its first step": [sys.executable, "-c", FIRST_STEP],
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VGX_CACHE"] = folder
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(options.rounds + 1):
            for name, command in commands.items():
                spent = cpu_seconds(command)
                if turn:
                    seconds[name].append(spent)
        rows = [[name, spread(values)] for name, values in seconds.items()]
    return f"## Starting\n\n{table(['command', 'CPU seconds'], rows)}"
