"""Train designs of the quickstart for the same time each, and write the page that compares them.

    python benchmarks/designs.py                              # all of them, with two seeds
    python benchmarks/designs.py before seldom --results made     # only these, elsewhere
    python benchmarks/designs.py --page                           # only the page

Time is that of the processor on one thread, so that other work on the machine changes little: steps
of all designs are timed in turns, the first design trains for `--steps` steps, and each other for
as many as take as long. Figures are those of 1,000 drawn faces that no training saw.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from design_entries import DESIGNS
from gallery import faces, save, trained, with_sampler
from side_by_side import run_all, write
from tables import ROOT, table, write_between

import vgx
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.recipe.lengths import with_length

PAGE, FOLDER = ROOT / "docs" / "designs.md", ROOT / "docs" / "designs"
FIRST = next(iter(DESIGNS))
TURNS, CHUNK = 3, 8  # steps in a turn: a multiple of each `every`, so that lazy terms count fully
LATE = 8000  # a step in which all terms count
N, SHOWN, HELD = 1000, 10, 1
METRICS = "eval.metrics=[psnr, detail, perceptual, frechet-distance, prdc]"
SETS = ("frechet-distance", "coverage")
HEAD = (
    "design", "steps", "PSNR, dB", "detail", "perceptual", "Frechet distance", "coverage",
    "of the prior: Frechet distance", "coverage",
)  # fmt: skip


def recipe_of(name: str, *more: str) -> vgx.Recipe:
    settings = (*DESIGNS[name].settings, METRICS, "train.save_every=1000000", *more)
    return vgx.load_recipe("anime_vaegan", [*settings, "train.draw_every=1000000"])


def costs(names: list[str]) -> dict[str, float]:
    """Return how long a step of each design takes, relative to one of the first: by medians."""
    names = [FIRST, *(name for name in names if name != FIRST)]
    recipes = {name: with_length(recipe_of(name), 2 * LATE) for name in names}
    engines = {name: Engine(recipe, 2 * LATE) for name, recipe in recipes.items()}
    measured: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(TURNS + 1):
        for name, engine in engines.items():
            recipe = engine.recipe
            images = torch.rand(recipe.train.batch, *recipe.image.shape)  # [B, C, H, W]
            start = time.process_time()
            for number in range(CHUNK):
                engine.step(LATE + number, [Batch(images, None)] * recipe.batches_per_step)
            if turn:
                measured[name].append((time.process_time() - start) / CHUNK)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    return {name: median / medians[FIRST] for name, median in medians.items()}


def make(entry: str, options: argparse.Namespace) -> None:
    """Train a design with a seed, and write its figures and images."""
    from vgx.evaluation.features import FeatureCache
    from vgx.evaluation.metrics import measure_reconstructions, measure_samples
    from vgx.sampling.draw import draw, draw_rows, prepare
    from vgx.sampling.model import load_model

    name, _, seed = entry.partition(".")
    cost = json.loads((options.results / "costs.json").read_text())[name]
    steps = round(options.steps / cost)
    recipe = recipe_of(name, f"train.seed={seed}", f"train.steps={steps}")
    run = trained(recipe, options.runs)
    model = load_model(run, recipe, None)
    cache = FeatureCache(recipe.image, model.codes.device)
    held, metrics = faces(recipe, HELD, N), recipe.eval.metrics
    figures = measure_reconstructions(model, held, [each for each in metrics if each.pairs])
    real = held.batch(0, SHOWN, model.codes.device)
    rows = [real, model.decode(model.encode(real))]
    for sampler in (recipe.sampler.type, "prior"):
        drawing = with_sampler(model, sampler)
        ready, sets = prepare(drawing, run), [each for each in metrics if not each.pairs]
        values = measure_samples(draw(drawing, ready, N, 0, None), held, sets, cache, model=drawing)
        figures |= {f"{sampler} {key}": values[key] for key in SETS}
        rows.append(draw_rows(drawing, ready, SHOWN, 0)[0])
    if seed == "0":
        save(rows, options.results / f"{name}.png", SHOWN, ())
    about = {"sampler": recipe.sampler.type, "steps": steps, "cost": cost, "figures": figures}
    write(options.results / f"{entry}.json", about)


def section(name: str) -> str:
    """Return what the page says of a design, with the images of its first seed."""
    text = f"### `{name}`\n\n{DESIGNS[name].what}\n\n"
    return text + f"![Images, reconstructions, samples, samples of the prior](designs/{name}.png)"


def row(name: str, made: list[dict[str, Any]]) -> list[str]:
    """Return the line of a design: the values of all its seeds."""
    own, prior = ([f"{which} {key}" for key in SETS] for which in (made[0]["sampler"], "prior"))
    cells = [f"`{name}`", f"{made[0]['steps']:,}"]
    for key in ("psnr", "detail", "perceptual", *own, *prior):
        found = [each["figures"][key] for each in made]
        cells.append(" ".join(f"{value:.3g}" if value < 10 else f"{value:.1f}" for value in found))
    return cells


def write_page() -> None:
    """Write the part of the page between its marks."""
    made: dict[str, list[dict[str, Any]]] = {}
    for name in DESIGNS:
        if files := sorted(FOLDER.glob(f"{name}.*.json")):
            made[name] = [json.loads(file.read_text()) for file in files]
    parts = [table(HEAD, [row(*each) for each in made.items()])]
    parts += [section(name) for name in made]
    write_between(PAGE, "designs", "\n\n".join(parts))


def command(entry: str, options: argparse.Namespace) -> list[object]:
    """Return the command that makes one design with one seed."""
    given = [__file__, entry, "--one", "--results", options.results, "--runs", options.runs]
    return [*given, "--steps", options.steps]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="designs; all by default")
    parser.add_argument("--results", type=Path, default=FOLDER, help="the folder of what is made")
    parser.add_argument("--runs", type=Path, default=Path("runs/designs"))
    parser.add_argument("--steps", type=int, default=500, help="of the first design")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page")
    parser.add_argument("--one", action="store_true", help="one design with one seed, NAME.SEED")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        write_page()
        return 0
    if options.one:
        make(*options.names, options)
        return 0
    names, file = options.names or [*DESIGNS], options.results / "costs.json"
    options.results.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.is_file() else {}
    write(file, known | costs(names))
    entries = [f"{name}.{seed}" for seed in range(options.seeds) for name in names]
    one = partial(command, options=options)
    failed = not run_all(entries, one, options.results, options.jobs, None)
    if options.results == FOLDER:
        write_page()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
