"""The time of `vgx list` for one run and for many, as runs with an `eval.best` leave them.

python benchmarks/listing.py
python benchmarks/listing.py --runs 1000 --lines 5000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import ROOT, spread, table

import vgx
from vgx.console import Console

SETTINGS = {
    "train.steps": 4, "train.save_every": 2, "eval.every": 2, "eval.n": 8,
    "eval.metrics": ["psnr", "l1"], "eval.best": "psnr",
}  # fmt: skip
COMMANDS = {"list of one run": "one", "list of all runs": "all"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--lines", type=int, default=1000, help="lines of each log")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VGX_CACHE"] = str(folder / "cache")
        make(folder, options.runs, options.lines)
        seconds: dict[str, list[float]] = {what: [] for what in ("--help", *COMMANDS.values())}
        for turn in range(options.rounds + 1):
            for what, values in seconds.items():
                arguments = [what] if what == "--help" else ["list", "--out", str(folder / what)]
                spent = time_of(arguments)
                if turn:
                    values.append(spent)
    rows = [["`vgx --help`", spread(seconds["--help"])]]
    rows += [[f"`vgx list`, {what.partition(' of ')[2]}", spread(seconds[out])]
             for what, out in COMMANDS.items()]  # fmt: skip
    print(f"{options.runs:,} runs, {options.lines:,} lines in each log\n")
    print(table(["command", "seconds"], rows))


def make(folder: Path, runs: int, lines: int) -> None:
    """Make one real run, give it a long log, and copy it."""
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", SETTINGS)
    made = vgx.run(recipe, out=folder / "one", console=Console(file=io.StringIO()))
    *_, line, measured = made.read_log()
    line.pop("metrics", None)
    log = [{**(line if n % 20 else measured), "step": n} for n in range(1, lines + 1)]
    made.log_file.write_text("".join(json.dumps(each) + "\n" for each in log))
    (folder / "all").mkdir()
    for number in range(1, runs + 1):
        shutil.copytree(made.path, folder / "all" / f"{number:04}-tiny")


def time_of(arguments: list[str]) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "vgx", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)  # noqa: S603
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
