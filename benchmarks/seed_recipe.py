"""The anime VAE-GAN as it was first written down beside ours: the same images, steps and seeds.

    python benchmarks/seed_recipe.py --path FOLDER --steps 1500 --jobs 4 --results made
    python benchmarks/seed_recipe.py --differences --path FOLDER ...     # each difference alone too
    python benchmarks/seed_recipe.py --page made                # writes the table of the page

Averaged weights change nothing of a training, so each run is measured with them and without them.
A fifth of the images is held out; reconstructions are those of held-out images, and drawn images
are compared with them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from side_by_side import run_all, write
from tables import ROOT, table, write_between

import vgx

PAGE = ROOT / "docs" / "seed-recipe.md"
OURS = {
    "rotation": ("augment.1.interpolation=bilinear", "augment.1.fill=edge"),
    "rates": ("train.optimizers.generator.lr=3e-4", "train.optimizers.discriminator.lr=5e-5"),
}
# The seed's own average is measured beside what it has none of.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "seed": ("anime_vaegan_seed", ("train.ema=0.98",)),
    "ours": ("anime_vaegan", ()),
    "rotation": ("anime_vaegan_seed", ("train.ema=0.98", *OURS["rotation"])),
    "rates": ("anime_vaegan_seed", ("train.ema=0.98", *OURS["rates"])),
}
SAMPLERS = ("weighted-mix", "gaussian-mixture", "prior")
# The columns of the page: a variant, and whether its weights are averaged.
COLUMNS = {
    "`anime_vaegan_seed`": ("seed", "trained"),
    "with our average": ("seed", "averaged"),
    "with our rotation": ("rotation", "trained"),
    "with our learning rates": ("rates", "trained"),
    "`anime_vaegan`": ("ours", "averaged"),
    "without its average": ("ours", "trained"),
}
NAMES = {
    "psnr": "PSNR, dB (more is better)",
    "perceptual": "perceptual [random-conv] (less is better)",
    "frechet-distance": "Frechet distance [random-conv] (less is better)",
    "coverage": "coverage [random-conv] (more is better)",
}


def make(name: str, options: argparse.Namespace) -> None:
    """Train `VARIANT-SEED` and measure it."""
    import torch

    from vgx.evaluation.features import FeatureCache
    from vgx.sampling.model import load_model

    variant, _, seed = name.rpartition("-")
    recipe, settings = VARIANTS[variant]
    own = {"train.steps": options.steps, "train.seed": int(seed), "eval.holdout": 0.2}
    seldom = {"train.draw_every": 10**9, "train.save_every": 10**9}
    file = ROOT / "recipes" / f"{recipe}.yaml"
    loaded = vgx.load_recipe(file, [*settings, *options.set], data=options.path)
    loaded = vgx.load_recipe(loaded, own | seldom)
    registry = vgx.discover()
    others = tuple(plugin for plugin in registry.plugins if plugin.name != "report")
    run = vgx.run(loaded, out=options.runs, registry=replace(registry, plugins=others))
    model = load_model(run, loaded, None)
    device = model.codes.device
    cache = FeatureCache(loaded.image, device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    lines = run.read_log()
    results: dict[str, Any] = {
        "steps": model.step,
        "images": lines[-1]["images"],
        "seconds": round(lines[-1]["seconds"]),
        "device": gpu or f"{os.cpu_count()} CPU cores",
    }
    for weights, measured in (("averaged", model), ("trained", without_average(run, model))):
        results |= {weights: figures(measured, cache, options.n)}
    write(options.results / f"{name}.json", results)


def without_average(run: Any, model: Any) -> Any:
    """Return the model with the weights that were trained, in place of their averages."""
    from vgx.runs import checkpoint

    _, state = checkpoint.load(run)
    networks = {}
    for name in ("encoder", "decoder"):
        networks[name] = copy.deepcopy(getattr(model, name))
        networks[name].load_state_dict(checkpoint.under(state.model, name))
    return replace(model, **networks)


def figures(model: Any, cache: Any, n: int) -> dict[str, Any]:
    """Measure reconstructions of held-out images, and images of each sampler beside them."""
    from vgx.console import Console
    from vgx.data.opening import store_of
    from vgx.data.store import open_source
    from vgx.evaluation.features import real_sets
    from vgx.evaluation.metrics import measure_reconstructions, measure_samples
    from vgx.sampling.draw import draw, prepare

    recipe = model.recipe
    source, _ = open_source(recipe.dataset, recipe.image)
    store = store_of(source, recipe.dataset, recipe.image, Console(), recipe.eval.holdout)
    held, seen = real_sets(store, recipe.eval.holdout, n)
    pairs, sets = (vgx.load_recipe(recipe, {"eval.metrics": [*names]}).eval.metrics
                   for names in (("psnr", "perceptual"), ("frechet-distance", "prdc")))  # fmt: skip
    found = {"reconstruction": measure_reconstructions(model, held, pairs)}
    for sampler in SAMPLERS:
        drawing = replace(model, recipe=vgx.load_recipe(recipe, {"sampler": sampler}))
        drawn = draw(drawing, prepare(drawing), n, 0)
        found[sampler] = measure_samples(drawn, held, sets, cache, model=drawing)
    real: dict[str, float] = {}
    for metric in sets:
        real |= metric.compare(*(cache.real_features(metric.features, s) for s in (held, seen)))
    return {**found, "real images": real, "held out": len(held)}


# --- the page ----------------------------------------------------------------------------------


def section(folder: Path) -> str:
    """Return the table of the page; each cell has the values of all seeds."""
    made = {each.stem: json.loads(each.read_text()) for each in sorted(folder.glob("*-*.json"))}
    made = {name: results for name, results in made.items() if "failed" not in results}
    columns = {
        title: [results for name, results in made.items() if name.rpartition("-")[0] == variant]
        for title, (variant, _) in COLUMNS.items()
    }
    columns = {title: runs for title, runs in columns.items() if runs}
    rows = []
    for kind in ("reconstruction", *SAMPLERS):
        for figure, name in NAMES.items():
            cells = [cell(runs, COLUMNS[title][1], kind, figure) for title, runs in columns.items()]
            if any(cells):
                real = cell(next(iter(columns.values()))[:1], "trained", "real images", figure)
                what = name if kind == "reconstruction" else f"`{kind}`: {name}"
                rows.append([what, *cells, real if kind != "reconstruction" else ""])
    first = next(iter(made.values()))
    counts = f"{first['steps']:,} steps, {first['images']:,} images seen"
    held = f"{first['trained']['held out']:,} images held out"
    head = ["on images that were held out", *columns, "training images"]
    return f"{counts}, {held}; on {first['device']}.\n\n{table(head, rows)}\n"


def cell(runs: list[dict[str, Any]], weights: str, kind: str, figure: str) -> str:
    values = (run[weights][kind].get(figure) for run in runs)
    return ", ".join(f"{value:.4g}" for value in values if value is not None)


def write_page(folder: Path) -> None:
    write_between(PAGE, "figures", f"\n{section(folder)}")


def names_of(options: argparse.Namespace) -> Iterator[str]:
    """Return what is trained, the most important first."""
    for seed in range(options.seeds):
        yield from (f"seed-{seed}", f"ours-{seed}")
    if options.differences:
        for seed in range(options.seeds):
            yield from (f"rotation-{seed}", f"rates-{seed}")


def command(name: str, options: argparse.Namespace) -> list[object]:
    given = [__file__, "--one", name, "--results", options.results, "--runs", options.runs]
    given += ["--steps", options.steps, "--n", options.n]
    given += ["--path", options.path] if options.path else []
    return given + [part for setting in options.set for part in ("--set", setting)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", help="images; by default faces are drawn")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--differences", action="store_true", help="each difference alone, too")
    parser.add_argument("--n", type=int, default=2000, help="images of each sampler")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--timeout", type=float, help="seconds after which a training has failed")
    parser.add_argument("--results", type=Path, default=Path("runs/seed/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/seed"))
    parser.add_argument("--set", action="append", default=[], help="as for vgx run, for all")
    parser.add_argument("--page", type=Path, metavar="RESULTS", help="train nothing")
    parser.add_argument("--one", metavar="NAME", help="in this process")
    options = parser.parse_args()
    if options.one:
        make(options.one, options)
        return 0
    if options.page:
        write_page(options.page)
        return 0
    one = partial(command, options=options)
    names = [*names_of(options)]
    return int(not run_all(names, one, options.results, options.jobs, options.timeout))


if __name__ == "__main__":
    sys.exit(main())
