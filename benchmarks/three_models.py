"""Train a VAE-GAN, a VAE and a GAN for the same time on the same pictures, judge and compare them.

    python benchmarks/three_models.py drawn-faces
    python benchmarks/three_models.py anime-faces --path FOLDER      # in the layout of the hub
    python benchmarks/three_models.py drawn-faces --judge            # from runs that are there

Each is stopped by SIGTERM once its log says that the time is over, so each trains on one thread for
the same number of seconds. Tables go to docs/three-models.md, the page of the three to the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tables import ROOT, table

import vgx

PAGE = ROOT / "docs" / "three-models.md"
SIZE, LATENT = 64, 256
SHARED = (
    f"image.size={SIZE}", f"latent={LATENT}", "eval.holdout=0.1", "train.steps=1000000",
    "train.log_every=1", "train.save_every=500",
)  # fmt: skip
# What each recipe is told besides; all else is as it stands in the file.
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


def train(name: str, data: str, runs: Path, seconds: float) -> None:
    """Train until the log says that the time is over; the step it is in is finished and saved."""
    settings = [data, *SHARED, *MODELS[name]]
    arguments = [part for setting in settings for part in ("--set", setting)]
    recipe = str(ROOT / "recipes" / f"{name}.yaml")
    process = subprocess.Popen(
        program("run", recipe, "--out", str(runs), *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None:
        time.sleep(1)
        if found := [run for run in runs.glob("*-*") if run.name.endswith(named(name))]:
            log = vgx.Run(found[0]).read_log()
            if log and log[-1]["seconds"] >= seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
    if process.returncode not in (0, 143):
        raise SystemExit(f"{name} ended with exit code {process.returncode}")


def named(name: str) -> str:
    return f"-{vgx.load_recipe(ROOT / 'recipes' / f'{name}.yaml').name}"


def judge(runs: Path) -> list[dict[str, object]]:
    """Judge the three with each sampler, and return what was found, as table rows need it."""
    found = sorted(runs.glob("*-*"))
    for run in found:
        samplers = [part for sampler in SAMPLERS for part in ("--sampler", sampler)]
        sizes = ["-n", str(N), "--seeds", str(SEEDS)]
        subprocess.run(program("eval", str(run), *samplers, *sizes), check=True)
        subprocess.run(program("report", str(run)), check=True)
    page = ["--out", str(runs / "compare.html")]
    subprocess.run(program("compare", *map(str, found), *page), check=True)
    return [about(vgx.Run(run)) for run in found]


def about(run: vgx.Run) -> dict[str, object]:
    line = [line for line in run.read_log() if line["losses"]][-1]
    said = json.loads((run.path / "evaluation.json").read_text())
    figures = {}
    for kind in ("reconstruction", "latent"):
        figures |= {f"{kind}: {k}": v for k, v in ((said[kind] or {}).get("figures", {})).items()}
    for part in said["generation"]:
        sampler = part["sampler"]["type"]
        figures |= {f"{sampler}: {k}": v for k, v in part["figures"].items()}
    return {"name": run.path.name.partition("-")[2], "line": line, "figures": figures}


def section(shown: list[dict[str, object]]) -> str:
    header = ["", *(each["name"] for each in shown)]
    rows = [
        ["seconds in training", *(f"{each['line']['seconds']:,.0f}" for each in shown)],
        ["steps", *(f"{each['line']['step']:,}" for each in shown)],
        ["pictures seen", *(f"{each['line']['images']:,}" for each in shown)],
    ]
    names = dict.fromkeys(figure for each in shown for figure in each["figures"])
    rows += [[figure, *(cell(each["figures"].get(figure)) for each in shown)] for figure in names]
    return table(header, rows)


def cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "-"
    spread = f" ± {figure['spread']:.2g}" if figure["spread"] else ""
    return f"{figure['mean']:.4g}{spread}"


def write(name: str, text: str) -> None:
    """Put the table between the page's two marks for this data set."""
    page = PAGE.read_text()
    marks = rf"(<!-- {name} -->\n).*?\n?(<!-- end -->)"
    new, count = re.subn(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{PAGE}: no place for {name}")
    PAGE.write_text(new)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=("drawn-faces", "anime-faces"))
    parser.add_argument("--path", type=Path, help="the folder of anime-faces")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--runs", type=Path, default=Path("runs/three"))
    parser.add_argument("--train", action="store_true", help="do not judge")
    parser.add_argument("--judge", action="store_true", help="do not train")
    options = parser.parse_args()
    runs = options.runs / options.data
    if not options.judge:
        for name in MODELS:
            train(name, dataset(options.data, options.path), runs, 60 * options.minutes)
    if not options.train:
        write(options.data, section(judge(runs)))


if __name__ == "__main__":
    main()
