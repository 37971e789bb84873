"""Starting: what a command costs before it does anything."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tables import ROOT, spread, table


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
        "`vgx check recipes/tiny.yaml`": [*python, "check", "recipes/tiny.yaml"],
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VGX_CACHE"] = folder
        rows = [
            [name, spread([cpu_seconds(command) for _ in range(options.rounds)])]
            for name, command in commands.items()
        ]
    return f"## Starting\n\n{table(['command', 'CPU seconds'], rows)}"
