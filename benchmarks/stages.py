"""Train at 96 pixels from a run at 48 pixels, and from scratch in the same time; compare the PSNR.

    python benchmarks/stages.py FOLDER      # images, or a data set in the layout of the hub
    python benchmarks/stages.py FOLDER --seconds 600 --repeats 3
    python benchmarks/stages.py FOLDER --page        # the table into docs/recipe/start.md

Time is that of the processor on one thread, so that other work on the machine changes little: the
steps of both sizes are timed in turns, before and after, and each training gets as many as fit its
time. A training from scratch has all of it at 96 pixels. One in two stages has a third of it at
48 pixels (or `--first` sixths), and the rest at 96. The PSNR is that of held-out images at 96
pixels. With `--decay` the learning rate falls to 0 at the end of the stage at 96 pixels.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from pathlib import Path

import torch
from tables import ROOT, table, write_between

import vgx
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine

PAGE = ROOT / "docs" / "recipe" / "start.md"
PARTS = 6  # of the time, after each of which the PSNR is measured
FIRST = 2  # of them at the smaller size, by default
LR = 1e-3  # of the recipe vae
BATCH, TIMED = 32, 8  # images in a minibatch; steps that are timed
SMALL, LARGE = 48, 96
# The larger networks have one width more, beside the image. Their other layers are the same.
WIDTHS = {
    SMALL: ("encoder.widths=[32, 64, 128, 256]", "decoder.widths=[256, 128, 64, 32]"),
    LARGE: ("encoder.widths=[32, 32, 64, 128, 256]", "decoder.widths=[256, 128, 64, 32, 32]"),
}


def recipe_of(size: int, data: str | None, *more: str) -> vgx.Recipe:
    shared = (
        f"image.size={size}", "latent=64", f"train.batch={BATCH}", "train.precision=fp32",
        "train.save_every=1000000", "train.draw_every=1000000",
        "eval.holdout=0.05", "eval.metrics=[psnr]",
    )  # fmt: skip
    return vgx.load_recipe("vae", [*shared, *WIDTHS[size], *more], data=data)


def times() -> dict[int, float]:
    """Return the seconds of the processor that a step of each size takes: the median."""
    engines = {size: Engine(recipe_of(size, None), steps=TIMED + 1) for size in WIDTHS}
    measured: dict[int, list[float]] = {size: [] for size in WIDTHS}
    for number in range(TIMED + 1):
        for size, engine in engines.items():
            batch = Batch(torch.rand(BATCH, 3, size, size), None)  # [B, C, H, W]
            start = time.process_time()
            engine.step(number, [batch])
            measured[size] += [time.process_time() - start] if number else []
    return {size: statistics.median(values) for size, values in measured.items()}


def train(size: int, data: str, out: Path, steps: int, every: int, *more: str) -> vgx.Run:
    print(f"{size} pixels: {steps:,} steps", flush=True)
    settings = (f"name=at-{size}", f"train.steps={steps}", f"eval.every={every}", *more)
    recipe = recipe_of(size, data, *settings)
    return vgx.run(recipe, out=out, device="cpu", console=Console(io.StringIO()))


def psnr(run: vgx.Run) -> dict[int, float]:
    """Return the PSNR by step."""
    lines = [line for line in run.read_log() if line.get("metrics")]
    return {line["step"]: line["metrics"]["psnr"] for line in lines}


def both(
    data: str, out: Path, steps: dict[int, int], seed: int, *, small: int, decay: bool
) -> list[list[float]]:
    """Train from scratch, and in two stages; return the PSNR after each part of the time.

    `small` parts of the time are for the smaller size. Odd seeds begin with the two stages.
    """
    results: dict[bool, list[float]] = {}
    for staged in (bool(seed % 2), not seed % 2):
        few, many, every = steps[SMALL] * small, steps[LARGE] * PARTS, steps[LARGE]
        more = [f"train.seed={seed}"]
        if staged:
            parent = train(SMALL, data, out, few, few, *more)
            more.append(f"start.run={parent.path}")
            many -= every * small
        if decay:
            lr = f"{{from: {LR}, to: 0, steps: {many}, shape: cosine}}"
            more.append(f"train.optimizers.generator.lr={lr}")
        results[staged] = [*psnr(train(LARGE, data, out, many, every, *more)).values()]
    return [results[False], results[True]]


def text_of(
    results: list[list[list[float]]],
    seconds: float,
    before: float,
    after: float,
    small: int = FIRST,
) -> str:
    """Return the tables of all repeats."""
    rows = []
    for part in range(PARTS):
        scratch = [repeat[0][part] for repeat in results]
        staged = [repeat[1][part - small] for repeat in results] if part >= small else []
        gain = [b - a for a, b in zip(scratch, staged, strict=False)]
        cells = [
            " ".join(f"{value:{form}.2f}" for value in values) or "(48 pixels)"
            for values, form in ((scratch, ""), (staged, ""), (gain, "+"))
        ]
        rows.append([f"{seconds * (part + 1) / PARTS:.0f}", *cells[:2], cells[2] if gain else ""])
    head = ["seconds", "from scratch: PSNR in dB", "from the run at 48 pixels", "difference"]
    drift = (
        f"A step at 96 pixels took {before:.3f} s of the processor before, and {after:.3f} s after."
    )
    return f"{table(head, rows)}\n\n{drift}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="as --data of vgx run: a folder of images, for instance")
    parser.add_argument("--seconds", type=float, default=180, help="of the processor, for each")
    parser.add_argument("--repeats", type=int, default=2, help="with other seeds, in turns")
    parser.add_argument("--first", type=int, default=FIRST, help="sixths of the time at 48 pixels")
    parser.add_argument("--decay", action="store_true", help="the learning rate falls to 0")
    parser.add_argument("--runs", type=Path, default=Path("runs/stages"))
    parser.add_argument("--page", action="store_true", help="write the table into the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = times()
    steps = {size: max(int(options.seconds / PARTS / before[size]), 1) for size in WIDTHS}
    results = [
        both(options.data, options.runs, steps, seed, small=options.first, decay=options.decay)
        for seed in range(options.repeats)
    ]
    text = text_of(results, options.seconds, before[LARGE], times()[LARGE], options.first)
    print(text)
    if options.page:
        write_between(PAGE, "stages", text)


if __name__ == "__main__":
    main()
