"""Several trainings at once, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


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
