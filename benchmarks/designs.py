"""Train designs of the quickstart for the same time each, and write the page that compares them.

    python benchmarks/designs.py                              # all of them, with two seeds
    python benchmarks/designs.py before seldom --results made     # only these, elsewhere
    python benchmarks/designs.py --page                           # only the page

Time is that of the processor on one thread, so that other work on the machine changes little: steps
of all designs are timed in turns, the first design trains for `--steps` steps, and each other for
as many as take as long, or a part of that. Figures are those of 1,000 drawn faces that no training
saw.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from design_entries import DESIGNS
from gallery import faces, save, trained, with_sampler
from side_by_side import known_costs, options_of, results_of, run_seeds, write
from tables import ROOT, table, write_between
from torch import Tensor

import vgx
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.recipe.lengths import with_length

PAGE, FOLDER = ROOT / "docs" / "designs.md", ROOT / "docs" / "designs"
FIRST = next(iter(DESIGNS))
TURNS, CHUNK = 3, 16  # steps in a turn: a multiple of each `every`, so that lazy terms count fully
LATE = 8000  # a step in which all terms count
N, SHOWN, HELD = 1000, 10, 1
METRICS = "eval.metrics=[psnr, detail, perceptual, frechet-distance, prdc]"
SETS = ("frechet-distance", "coverage")
HEAD = (
    "design", "steps", "PSNR, dB", "detail", "perceptual", "Frechet distance", "coverage",
    "checkerboard", "of the prior: Frechet distance", "coverage",
)  # fmt: skip


def recipe_of(name: str, *more: str) -> vgx.Recipe:
    settings = (*DESIGNS[name].settings, METRICS, "train.save_every=1000000", *more)
    return vgx.load_recipe("anime_vaegan", [*settings, "train.draw_every=1000000"])


def costs(recipes: Mapping[str, vgx.Recipe]) -> dict[str, float]:
    """Return the processor's seconds for a step of each recipe: the median of turns."""
    recipes = {name: with_length(recipe, 2 * LATE) for name, recipe in recipes.items()}
    engines = {name: Engine(recipe, 2 * LATE) for name, recipe in recipes.items()}
    measured: dict[str, list[float]] = {name: [] for name in recipes}
    for turn in range(TURNS + 1):
        for name, engine in engines.items():
            recipe = engine.recipe
            images = torch.rand(recipe.train.batch, *recipe.image.shape)  # [B, C, H, W]
            start = time.process_time()
            for number in range(CHUNK):
                engine.step(LATE + number, [Batch(images, None)] * recipe.batches_per_step)
            if turn:
                measured[name].append((time.process_time() - start) / CHUNK)
    return {name: statistics.median(values) for name, values in measured.items()}


def make(entry: str, options: argparse.Namespace) -> None:
    """Train a design with a seed, and write its figures and images."""
    from vgx.sampling.model import load_model

    name, _, seed = entry.partition(".")
    cost = known_costs(options.results)[name]
    steps = round(options.steps * DESIGNS[name].share / cost)
    recipe = recipe_of(name, f"train.seed={seed}", f"train.steps={steps}")
    run = trained(recipe, options.runs)
    held = faces(recipe, HELD, N)
    figures, rows = measured(load_model(run, recipe, None), run, held, SHOWN)
    if seed == "0":
        images = [held.batch(0, SHOWN, rows[0].device), *rows]
        save(images, options.results / f"{name}.png", SHOWN, ())
    about = {"sampler": recipe.sampler.type, "steps": steps, "cost": cost, "figures": figures}
    write(options.results / f"{entry}.json", about)


def measured(model: Any, run: Any, held: Any, shown: int) -> tuple[dict[str, float], list[Tensor]]:
    """Return figures of a model, beside held-out images, and images.

    The images are reconstructions (not of a GAN), images of the recipe's sampler, and images of
    N(0, I): `shown` of each, [shown, C, H, W].
    """
    from vgx.evaluation.features import FeatureCache
    from vgx.evaluation.metrics import measure_reconstructions, measure_samples
    from vgx.sampling.draw import draw, draw_rows, prepare

    device, metrics = model.codes.device, model.recipe.eval.metrics
    cache, rows = FeatureCache(model.recipe.image, device), []
    figures: dict[str, float] = {}
    if model.encoder is not None:
        figures |= measure_reconstructions(model, held, [each for each in metrics if each.pairs])
        rows.append(model.decode(model.encode(held.batch(0, shown, device))))
    for sampler in dict.fromkeys((model.recipe.sampler.type, "prior")):
        drawing = with_sampler(model, sampler)
        ready, sets = prepare(drawing, run), [each for each in metrics if not each.pairs]
        drawn = torch.cat([*draw(drawing, ready, len(held), 0, None)])  # [N, C, H, W]
        values = measure_samples(drawn.split(100), held, sets, cache, model=drawing)
        figures |= {f"{sampler} {key}": values[key] for key in SETS}
        figures[f"{sampler} checkerboard"] = checkerboard(drawn)
        rows.append(draw_rows(drawing, ready, shown, 0)[0])
    return figures, rows


def checkerboard(images: Tensor) -> float:
    """Return how much stronger the finest pattern of images [N, C, H, W] is than those beside it.

    It is the power of a period of two pixels, in rows and in columns, over that of the third and
    the fourth frequency below: about 1 in pictures, more where upsampling leaves a grid (Odena et
    al. 2016, "Deconvolution and Checkerboard Artifacts"). H and W are even.
    """
    ratios = []
    for lines in (images.mean(1), images.mean(1).mT):  # [N, H, W], grey
        window = torch.hann_window(lines.shape[-1], periodic=False, device=lines.device)
        power = torch.fft.rfft(lines * window).abs().square().mean((0, 1))  # [W / 2 + 1]
        ratios.append((power[-1] / power[-5:-3].mean()).item())
    return statistics.mean(ratios)


def section(name: str) -> str:
    """Return what the page says of a design, with the images of its first seed."""
    text = f"### `{name}`\n\n{DESIGNS[name].what}\n\n"
    return text + f"![Images, reconstructions, samples, samples of the prior](designs/{name}.png)"


def row(name: str, made: list[dict[str, Any]]) -> list[str]:
    """Return the line of a design: the values of all its seeds."""
    which = made[0]["sampler"]
    own, prior = ([f"{each} {key}" for key in SETS] for each in (which, "prior"))
    cells = [f"`{name}`", f"{made[0]['steps']:,}"]
    for key in ("psnr", "detail", "perceptual", *own, f"{which} checkerboard", *prior):
        found = [each["figures"][key] for each in made if key in each["figures"]]
        texts = [f"{value:.3g}" if value < 10 else f"{value:.1f}" for value in found]
        cells.append(" ".join(texts) or "-")
    return cells


def write_page() -> None:
    """Write the part of the page between its marks."""
    made = results_of(DESIGNS, FOLDER)
    parts = [table(HEAD, [row(*each) for each in made.items()])]
    parts += [section(name) for name in made]
    write_between(PAGE, "designs", "\n\n".join(parts))


def command(entry: str, options: argparse.Namespace) -> list[object]:
    """Return the command that makes one design with one seed."""
    given = [__file__, entry, "--one", "--results", options.results, "--runs", options.runs]
    return [*given, "--steps", options.steps]


def main() -> int:
    parser = options_of(__doc__, FOLDER, Path("runs/designs"))
    parser.add_argument("--steps", type=int, default=500, help="of the first design")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        write_page()
        return 0
    if options.one:
        make(*options.names, options)
        return 0
    names, known = options.names or [*DESIGNS], known_costs(options.results)
    seconds = costs({name: recipe_of(name) for name in dict.fromkeys([FIRST, *names])})
    relative = {name: each / seconds[FIRST] for name, each in seconds.items()}
    write(options.results / "costs.json", known | relative)
    failed = not run_seeds(names, command, options, options.results)
    if options.results == FOLDER:
        write_page()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
