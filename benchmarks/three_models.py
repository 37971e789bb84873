"""Train a VAE-GAN, a VAE and a GAN for the same time on the same images, evaluate and compare them.

    python benchmarks/three_models.py drawn-faces
    python benchmarks/three_models.py anime-faces --path FOLDER      # in the layout of the hub
    python benchmarks/three_models.py drawn-faces --evaluate         # from earlier runs

Each is stopped by SIGTERM when its log says that the time is over, so each trains on one thread for
the same number of seconds. Tables go to docs/three-models.md, the comparison's page to the runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tables import ROOT, table, write_between

import vgx
from vgx_report import compare
from vgx_report.compare import RunData

PAGE = ROOT / "docs" / "three-models.md"
SIZE, LATENT = 64, 256
SHARED = (
    f"image.size={SIZE}", f"latent={LATENT}", "eval.holdout=0.1", "train.steps=1000000",
    "train.log_every=1", "train.save_every=500",
)  # fmt: skip
# Further settings of each recipe; all else is as in its file.
MODELS = {
    "anime_vaegan": ("train.epochs=null", "train.batch=32"),
    "vae": ("encoder.widths=[32, 64, 128, 256]", "decoder.widths=[256, 128, 64, 32]"),
    "dcgan": ("decoder.widths=[256, 128, 64, 32]", "discriminator.widths=[32, 64, 128, 256]"),
}
SAMPLERS = ("prior", "weighted-mix", "gaussian-mixture")
N, SEEDS = 5000, 3


def dataset(name: str, folder: Path | None) -> str:
    if name == "drawn-faces":
        return "dataset={type: drawn-faces, count: 12000}"
    return f"dataset={{type: huggingface, path: {folder}, non_rgb: skip}}"


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vgx", *arguments]


def run_vgx(*arguments: str) -> None:
    subprocess.run(program(*arguments), check=True)  # noqa: S603


def train(name: str, data: str, runs: Path, seconds: float) -> None:
    """Train until the log says that the time is over; the step it is in is finished and saved."""
    settings = [data, *SHARED, *MODELS[name]]
    arguments = [part for setting in settings for part in ("--set", setting)]
    recipe = ROOT / "recipes" / f"{name}.yaml"
    before = set(runs.glob("*-*"))
    process = subprocess.Popen(  # noqa: S603
        program("run", str(recipe), "--out", str(runs), *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None:
        time.sleep(1)
        for run in {*runs.glob("*-*")} - before:
            log = vgx.Run(run).read_log()
            if log and log[-1]["seconds"] >= seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
    if process.returncode != 128 + signal.SIGTERM:
        raise SystemExit(f"{name} ended with exit code {process.returncode}")


def evaluate(runs: list[Path]) -> None:
    samplers = [part for sampler in SAMPLERS for part in ("--sampler", sampler)]
    for run in runs:
        run_vgx("eval", str(run), *samplers, "-n", str(N), "--seeds", str(SEEDS))
        run_vgx("report", str(run))
    run_vgx("compare", *map(str, runs), "--out", str(runs[0].parent / "compare.html"))


def section(runs: Sequence[RunData]) -> str:
    lines = [[line for line in run.log if line["losses"]][-1] for run in runs]
    rows = [
        ["seconds in training", *(f"{line['seconds']:,.0f}" for line in lines)],
        ["steps", *(f"{line['step']:,}" for line in lines)],
        ["images seen", *(f"{line['images']:,}" for line in lines)],
    ]
    for side in compare.evaluation_tables(runs):
        rows += [[f"{side.title}: {row.name}", *row.cells] for row in side.rows]
    return table(["", *(run.name.partition("-")[2] for run in runs)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=("drawn-faces", "anime-faces"))
    parser.add_argument("--path", type=Path, help="the folder of anime-faces")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--runs", type=Path, default=Path("runs/three"))
    parser.add_argument("--train", action="store_true", help="do not evaluate")
    parser.add_argument("--evaluate", action="store_true", help="do not train")
    options = parser.parse_args()
    runs = options.runs / options.data
    if not options.evaluate:
        if runs.exists():
            raise SystemExit(f"{runs}: there are runs already; --evaluate evaluates them")
        for name in MODELS:
            train(name, dataset(options.data, options.path), runs, 60 * options.minutes)
    if not options.train:
        folders = sorted(runs.glob("*-*"))
        evaluate(folders)
        shown = section([compare.read(vgx.Run(folder)) for folder in folders])
        write_between(PAGE, options.data, shown)


if __name__ == "__main__":
    main()
