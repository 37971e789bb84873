"""Several trainings at once, each in a process of its own, and what they have written."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any


def options_of(about: str, results: Path, runs: Path) -> argparse.ArgumentParser:
    """Return the options of a program that trains many things, each with several seeds."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to train; all by default")
    parser.add_argument("--results", type=Path, default=results, help="the folder of figures")
    parser.add_argument("--runs", type=Path, default=runs)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page")
    parser.add_argument("--one", action="store_true", help="one of them with one seed, NAME.SEED")
    return parser


def results_of(names: Iterable[str], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what was written of each name, seed by seed, without those that were not trained."""
    made = {
        name: [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name}.*.json"))]
        for name in names
    }
    return {name: each for name, each in made.items() if each}


def known_costs(folder: Path) -> dict[str, float]:
    """Return what costs.json in the folder of figures has, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "costs.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    return known


def run_seeds(
    names: Sequence[str],
    command: Callable[[str, argparse.Namespace], list[object]],
    options: argparse.Namespace,
    folder: Path,
) -> bool:
    """Train each name with each seed, all names with one seed first, as `run_all` does."""
    entries = [f"{name}.{seed}" for seed in range(options.seeds) for name in names]
    one = partial(command, options=options)
    return run_all(entries, one, folder, options.jobs, None)


def run_all(
    names: Sequence[str],
    command: Callable[[str], list[object]],
    folder: Path,
    jobs: int,
    timeout: float | None,
) -> bool:
    """Run a Python program for each name, `jobs` at once; return whether all of them succeeded.

    What they print goes to NAME.log in the folder. One that fails, or takes longer than `timeout`
    seconds, leaves its error in NAME.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // jobs, 1)

    def work(name: str) -> bool:
        return _run(name, [sys.executable, *map(str, command(name))], folder, threads, timeout)

    with ThreadPoolExecutor(jobs) as pool:
        return all([*pool.map(work, names)])


def _run(name: str, command: list[str], folder: Path, threads: int, timeout: float | None) -> bool:
    began, log = time.monotonic(), folder / f"{name}.log"
    with log.open("w") as output:
        try:
            done = subprocess.run(  # noqa: S603
                command, check=False, stdout=output, stderr=output, timeout=timeout,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
            error = "" if done.returncode == 0 else f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            error = f"it was ended after {timeout:g} s"
    if error:
        last = (log.read_text().strip().splitlines() or [""])[-1]
        write(folder / f"{name}.json", {"failed": f"{error}: {last}"})
    print(f"{name}: {error or 'done'}, {time.monotonic() - began:.0f} s", flush=True)
    return not error


def write(file: Path, results: dict[str, Any]) -> None:
    """Write results as JSON."""
    file.write_text(json.dumps(results, indent=1) + "\n")
