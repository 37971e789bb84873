"""Decoding images into the store: two checkouts of vgx in turns.

    python benchmarks/store_speed.py CHECKOUT [--rounds 10] [--images 8000]

CHECKOUT is another checkout of vgx, such as the state before a change. Each round starts one
process for each, in changing order, that stores the same JPEGs of 100 pixels. CPU time is compared
too, because it depends less on what else the machine does. Values are medians [minimum..maximum].
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tables import ROOT, spread, table

WORK = """
import os, sys, time
from speed_data import SPEC, Jpegs, open_store
source = Jpegs(int(sys.argv[1]))
open_store(Jpegs(200), SPEC)  # imports, threads
wall, cpu = time.perf_counter(), time.process_time()
open_store(source, SPEC)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def measured(checkout: Path, images: int) -> tuple[float, float]:
    """Return the microseconds for an image: of wall time, and of CPU time."""
    paths = (checkout / "framework", checkout / "plugins", checkout / "benchmarks")
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "VGX_CACHE": folder,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", WORK, str(images)]
        done = subprocess.run(  # noqa: S603
            command, env=environment, check=True, capture_output=True, text=True, timeout=600
        )
    wall, cpu = (1e6 * float(value) / images for value in done.stdout.split())
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=8000)
    options = parser.parse_args()
    places = {"that checkout": options.checkout.resolve(), "this one": ROOT}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    for number in range(options.rounds):
        for name in list(places)[:: 1 if number % 2 else -1]:
            seen[name].append(measured(places[name], options.images))
    before = seen["that checkout"]
    rows = []
    for name, values in seen.items():
        pairs = list(zip(values, before, strict=True))
        cells = [[value[i] for value in values] for i in (0, 1)]
        ratios = [[value[i] / other[i] for value, other in pairs] for i in (0, 1)]
        rows.append([name, *map(spread, cells), *map(spread, ratios)])
    header = ["", "µs an image", "µs of CPU", "relative", "relative, CPU"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
