"""How fast vgx is beside others, on this machine: tables in Markdown for docs/performance.md.

Contenders take turns in one process, so that a machine whose speed drifts treats all alike; figures
are medians over the rounds, with least and most.

    pip install -e '.[bench]' && python benchmarks/performance.py
    python benchmarks/performance.py --quick --out /dev/stdout       # only shows that it works
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from speed_data import data
from speed_sampling import sampling
from speed_starting import starting
from speed_training import training
from tables import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="in one turn of a contender")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.steps = 1
    device = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    python = f"Python {platform.python_version()}"
    about = (
        "# Performance\n\n"
        "Written by `python benchmarks/performance.py`. Contenders take turns in one process; "
        f"figures are medians [least..most] of {options.rounds} rounds.\n\n"
        f"Here: {device}; {python}, torch {version('torch')}, timm {version('timm')}."
    )
    parts = [part(options) for part in (training, data, sampling, starting)]
    options.out.write_text("\n\n".join([about, *parts]) + "\n")


if __name__ == "__main__":
    main()
