"""Train models on real faces for the same time each, and compare them on images held out.

    python benchmarks/hour.py --path FOLDER                       # all of them, with two seeds
    python benchmarks/hour.py vae anime_best --path FOLDER        # only these
    python benchmarks/hour.py resnet18 --path FOLDER              # anime_best with this backbone
    python benchmarks/hour.py --page                              # only the tables of the page

Time is that of the processor on one thread: steps of all models are timed in turns, and each trains
for as many as take an hour, or a quarter of an hour to compare backbones. Images stay with the
runs: they are not ours to publish.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from designs import HEAD, METRICS, costs, measured, row
from gallery import sheet, trained
from side_by_side import known_costs, options_of, results_of, run_seeds, write
from tables import ROOT, table, write_between

import vgx

PAGE, FOLDER = ROOT / "docs" / "three-models.md", ROOT / "docs" / "hour"
SHARED = ("image.size=96", "latent=256", "eval.holdout=0.1", METRICS)
WIDTHS = "decoder.widths=[256, 128, 64, 32]"
PLAIN = (WIDTHS, "encoder.widths=[32, 64, 128, 256]", "sampler=gaussian-mixture")
MUON = "train.optimizers.generator={type: muon, lr: 0.01, momentum: 0.9}"
GAN = (WIDTHS, "discriminator.widths=[32, 64, 128, 256]")
SHARP = (
    "losses.0.weight=1", "losses.4.weight=3", "discriminator.backbone=test_efficientnet_gn",
)  # fmt: skip
WITHOUT_R1 = (
    (
        "losses=[{type: bce-adversarial, every: 8}, {type: l2, weight: 400}, bce,"
        " {type: kl, weight: 100}]"
    ),
    "train.optimizers.generator.lr=0.01",
)
SHOWN, COLUMNS = 40, 10
FIRST = "vae"  # timed with all others

# By name: the recipe, and further settings; all else is as in its file.
MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "anime_vaegan": ("anime_vaegan", ("sampler=gaussian-mixture",)),
    "vae": ("vae", PLAIN),
    "vae_muon": ("vae", (*PLAIN, MUON)),
    "dcgan": ("dcgan", (*GAN, "eval.metrics=[frechet-distance, prdc]")),
    "anime_best": ("anime_best", ()),
    "anime_best_sharp": ("anime_best", SHARP),
    "anime_best_without_r1": ("anime_best", WITHOUT_R1),
}
# `anime_best` with other backbones of its discriminator, for a quarter of the hour.
BACKBONES = {
    name: ("anime_best", (f"discriminator.backbone={name}",))
    for name in ("test_resnet", "resnet10t", "resnet18", "resnet26", "resnet50")
}
HOUR = 3600.0


def recipe_of(name: str, path: str, *more: str) -> vgx.Recipe:
    recipe, settings = (MODELS | BACKBONES)[name]
    seldom = ("train.save_every=1000000", "train.draw_every=1000000")
    given = vgx.load_recipe(recipe, [*SHARED, *settings, *seldom], data=path)
    return vgx.load_recipe(given, more)


def make(entry: str, options: argparse.Namespace) -> None:
    """Train a model with a seed, and write its figures and images."""
    from vgx.console import Console
    from vgx.data.opening import store_of
    from vgx.data.store import open_source
    from vgx.evaluation.features import real_sets
    from vgx.sampling.model import load_model

    name, _, seed = entry.partition(".")
    cost = known_costs(options.results)[name]
    seconds = options.seconds or (HOUR / 4 if name in BACKBONES else HOUR)
    steps = round(seconds / cost)
    recipe = recipe_of(name, options.path, f"train.seed={seed}", f"train.steps={steps}")
    run = trained(recipe, options.runs)
    source, _ = open_source(recipe.dataset, recipe.image)
    store = store_of(source, recipe.dataset, recipe.image, Console(), recipe.eval.holdout)
    held, _ = real_sets(store, recipe.eval.holdout, len(store.images))
    figures, rows = measured(load_model(run, recipe, None), run, held, SHOWN)
    images = [held.batch(0, SHOWN, rows[0].device), *rows]
    sheet(images, COLUMNS).save(options.runs / f"{entry}.png")  # in all its colours
    about = {"sampler": recipe.sampler.type, "steps": steps, "figures": figures}
    write(options.results / f"{entry}.json", about)


def write_page() -> None:
    """Write the tables of the page."""
    for mark, what, names in (("hour", "model", MODELS), ("backbones", "backbone", BACKBONES)):
        rows = [row(name, made) for name, made in results_of(names, FOLDER).items()]
        write_between(PAGE, mark, table((what, *HEAD[1:]), rows))


def command(entry: str, options: argparse.Namespace) -> list[object]:
    """Return the command that makes one model with one seed."""
    given = [__file__, entry, "--one", "--results", options.results, "--runs", options.runs]
    seconds = ("--seconds", options.seconds) if options.seconds else ()
    return [*given, *seconds, "--path", options.path]


def main() -> int:
    parser = options_of(__doc__, FOLDER, Path("runs/hour"))
    parser.add_argument("--path", help="the folder of faces")
    parser.add_argument("--seconds", type=float, help="of one thread")
    options = parser.parse_args()
    if not (options.path or options.page):
        parser.error("--path: which folder of faces?")
    torch.set_num_threads(1)
    if options.page:
        write_page()
        return 0
    if options.one:
        make(*options.names, options)
        return 0
    names = options.names or [*MODELS, *BACKBONES]
    known = known_costs(options.results)
    if new := [name for name in names if name not in known]:
        timed = dict.fromkeys((FIRST, *new))
        seconds = costs({name: recipe_of(name, options.path) for name in timed})
        # The machine may be faster than in an earlier call; one model's cost tells how much.
        change = known.get(FIRST, seconds[FIRST]) / seconds[FIRST]
        own = {name: seconds[name] * change for name in new}
        write(options.results / "costs.json", known | own)
    failed = not run_seeds(names, command, options, options.runs)
    if options.results == FOLDER:
        write_page()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
