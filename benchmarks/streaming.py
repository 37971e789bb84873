"""More images than the store may hold: packed, streamed, killed and resumed to the same bits.

    python benchmarks/streaming.py --folder faces

Draws 100,000 faces of 32 pixels (once: minutes of one core), packs them to shards, and trains on
them for more than one epoch with a store of a tenth of them: once without a stop, once killed and
resumed. Prints what it measured; ends with exit code 1 when the weights differ.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tables import table

import vgx
from vgx.console import Console
from vgx.data.batches import Batches
from vgx.data.opening import store_of
from vgx_data.pack import Sizes, pack_images, recipe_of

SIDE, BATCH = 32, 64
BYTES = 3 * SIDE**2  # of a decoded image
RECIPE = """
name: streaming
image: {{size: 32}}
latent: 16
dataset: {{type: huggingface, path: {shards}, stream: true}}
encoder: {{type: conv, widths: [8, 16]}}
decoder: {{type: conv-transpose, widths: [16, 8]}}
losses: [l1, kl]
sampler: prior
augment: [{{type: horizontal-flip}}]
train: {{steps: {steps}, batch: 64, log_every: 1, save_every: {every}, draw_every: {steps}, precision: fp32}}
eval: {{holdout: {holdout}}}
"""  # fmt: skip # noqa: E501


@dataclass
class Watched:
    """What was seen of a process."""

    seconds: float = 0.0  # until the first new step, from the start of the process
    resident: float = 0.0  # MB of memory at most
    anonymous: float = 0.0  # MB of these that no file backs, at most


def main() -> int:
    parser = argparse.ArgumentParser(description="Train on more images than the store may hold.")
    parser.add_argument("--folder", type=Path, required=True, help="shards, runs and the cache")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rows-per-group", type=int, default=1000)
    parser.add_argument("--holdout", type=float, default=0.0)
    options = parser.parse_args()
    folder, count = options.folder.absolute(), options.count
    shards = folder / f"shards-{count}-{options.rows_per_group}"
    os.environ["VGX_CACHE"] = str(folder / "cache")
    packed(shards, count, options.rows_per_group)
    rows = [speeds(shards, name, room) for name, room in rooms(count)]
    header = ["images", "opening, s", "first epoch, minibatches/s", "second epoch"]
    print(table(header, rows), flush=True)
    os.environ["VGX_CACHE_MAX"] = str(count // 10 * BYTES)
    return 0 if same_bits(folder, shards, count, options.holdout) else 1


def rooms(count: int) -> list[tuple[str, str]]:
    """Return the ways to read, each with the room for decoded images."""
    return [
        ("streamed, room for all", str(2 * count * BYTES)),
        ("streamed, room for a tenth", str(count // 10 * BYTES)),
        ("stored", str(2 * count * BYTES)),
    ]


def packed(shards: Path, count: int, rows_per_group: int) -> None:
    if shards.is_dir():
        return
    registry = vgx.discover()
    recipe = recipe_of("quickstart", [f"dataset.count={count}", f"image.size={SIDE}"], registry)
    start = time.perf_counter()
    sizes = Sizes(rows_per_group, max(count * 200, 10_000))  # about ten shards
    text = pack_images(recipe, registry, shards, sizes, Console())
    print(f"{text}, drawn and packed in {time.perf_counter() - start:,.0f} s", flush=True)


def speeds(shards: Path, name: str, room: str) -> list[str]:
    """Return how fast minibatches come in two epochs."""
    os.environ["VGX_CACHE_MAX"] = room
    fields = {"type": "huggingface", "path": str(shards), "stream": name != "stored"}
    recipe = vgx.load_recipe("quickstart", {"dataset": fields, "image.size": SIDE})
    start = time.perf_counter()
    source = recipe.dataset.build(recipe.image)
    store = store_of(source, recipe.dataset, recipe.image, Console(io.StringIO()))
    opening = time.perf_counter() - start
    batches, found = Batches(store.images, BATCH, 0, torch.device("cpu")), []
    for epoch in range(2):
        start, first = time.perf_counter(), epoch * batches.per_epoch
        for number in range(first, first + batches.per_epoch):
            batches[number]
        found.append(f"{batches.per_epoch / (time.perf_counter() - start):,.0f}")
    return [name, f"{opening:.2f}", *found]


def same_bits(folder: Path, shards: Path, count: int, holdout: float) -> bool:
    """Train without a stop, and killed and resumed; compare and print."""
    steps = round(1.3 * count / BATCH)
    every = max(steps // 8, 1)
    recipe = folder / "streaming.yaml"
    text = RECIPE.format(shards=shards, steps=steps, every=every, holdout=holdout)
    recipe.write_text(text)
    out = {name: folder / "runs" / f"{name}-{time.time_ns()}" for name in ("whole", "killed")}
    begun = ["run", recipe, "--device", "cpu", "--out"]
    with trained([*begun, out["whole"]], lambda: logged(newest(out["whole"])) > 0) as (
        whole,
        process,
    ):
        process.wait()
    kill_at = 5 * every + every // 2
    with trained([*begun, out["killed"]], lambda: logged(newest(out["killed"])) >= kill_at) as (
        _,
        process,
    ):
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = newest(out["killed"])
    reached, saved = logged(killed), int(checkpoints(killed)[-1].name[5:])
    again = ["resume", killed, "--device", "cpu"]
    # The log is first rewound to the checkpoint.
    with trained(again, lambda: saved < logged(killed) < reached) as (resumed, process):
        process.wait()
    print(f"Killed at step {reached:,} of {steps:,}; the last checkpoint was of {saved:,}.")
    rows = [
        [name, f"{seen.seconds:.1f}", f"{seen.resident:,.0f}", f"{seen.anonymous:,.0f}"]
        for name, seen in (("without a stop", whole), ("killed and resumed", resumed))
    ]
    header = ["run", "first new step after, s", "memory at most, MB", "without files, MB"]
    print(table(header, rows))
    digests = {name: digest(newest(path)) for name, path in out.items()}
    equal = digests["whole"] == digests["killed"] and digests["whole"][0] == steps
    print(f"Steps and SHA-256 of the last weights: {digests}: {'equal' if equal else 'DIFFERENT'}")
    return equal


@contextmanager
def trained(
    words: list[object], begun: Callable[[], bool]
) -> Iterator[tuple[Watched, subprocess.Popen[bytes]]]:
    """Start a program; the block runs when it has begun. Its memory is watched to the end."""
    seen, start = Watched(), time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - this Python, and words from above
        [sys.executable, "-m", "vgx", *map(str, words)], stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not begun():
        measure(process.pid, seen)
        time.sleep(0.02)
    seen.seconds = time.perf_counter() - start
    wait = process.wait

    def watched() -> int:
        while process.poll() is None:
            measure(process.pid, seen)
            time.sleep(0.05)
        return wait()

    process.wait = watched  # type: ignore[method-assign,assignment]
    yield seen, process


def measure(pid: int, seen: Watched) -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text().split()
    except OSError:
        return
    if "VmHWM:" in status:
        seen.resident = max(seen.resident, int(status[status.index("VmHWM:") + 1]) / 1000)
        seen.anonymous = max(seen.anonymous, int(status[status.index("RssAnon:") + 1]) / 1000)


def newest(out: Path) -> Path:
    return max(out.glob("0*"), default=out)


def logged(run: Path) -> int:
    """Return the last step in the log of a run; 0 when there is none."""
    file = run / "log.jsonl"
    lines = file.read_bytes().splitlines()[-2:] if file.is_file() else []
    for line in reversed(lines):
        if line.endswith(b"}"):
            return int(json.loads(line)["step"])
    return 0


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-????????"))


def digest(run: Path) -> tuple[int, str]:
    """Return the last step that was saved, and the SHA-256 of its files of tensors."""
    last, sha256 = checkpoints(run)[-1], hashlib.sha256()
    for file in sorted(last.glob("*.safetensors")):
        sha256.update(file.read_bytes())
    return int(last.name[5:]), sha256.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
