"""Train the recipes of the gallery, draw forty images with each, and write the gallery's page.

python benchmarks/gallery.py --jobs 8 --results made       # all of them, on a GPU if there is one
python benchmarks/gallery.py vae dcgan --results made      # only these
python benchmarks/gallery.py --take made                   # copy what succeeded; write the page
python benchmarks/gallery.py --page                        # only the page
python benchmarks/gallery.py --share 0.005 --n 100 --results trial     # does each of them work?

Each training is a process of its own. One that fails leaves its error in NAME.json, and the command
ends with 1 after all others.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gallery_entries import ENTRIES, Entry
from side_by_side import run_all, write
from tables import ROOT

import vgx

FOLDER = ROOT / "docs" / "gallery"
COUNT, COLUMNS = 40, 10
LEAST = 64  # pixels of an image on the page
HELD, OTHERS = 1, 2  # seeds of faces that no training sees
METRICS = ("frechet-distance", "prdc")  # of drawn images


# --- one training ------------------------------------------------------------------------------


def make(name: str, options: argparse.Namespace) -> Any:
    """Train one entry, write NAME.png and NAME.json, and return its run."""
    from vgx.evaluation.features import FeatureCache
    from vgx.sampling.model import load_model

    entry = ENTRIES[name]
    given = {
        text.partition("=")[0]: text for text in (*entry.overrides(options.share), *options.set)
    }
    settings = [*given.values()]  # of each field the last one
    overrides = [with_folders(text, entry, options) for text in settings]
    recipe = vgx.load_recipe(ROOT / "recipes" / f"{entry.recipe or name}.yaml", overrides)
    # How often it draws and saves changes nothing of the training.
    seldom = {"train.draw_every": 10**9, "train.save_every": 10**9}
    recipe = vgx.load_recipe(recipe, seldom)
    run = trained(recipe, options.runs, options.seconds)
    model = load_model(run, recipe, None)
    cache = FeatureCache(recipe.image, model.codes.device)
    results = about(run, model)
    results |= {"settings": settings, **figures(run, model, cache, options.n)}
    draw_all(name, run, model, options)
    write(options.results / f"{name}.json", results)
    return run


def with_folders(setting: str, entry: Entry, options: argparse.Namespace) -> str:
    """Return a setting with the folders that it names, which are made when they are missing."""
    if setting.endswith("=BASE"):
        from vgx_share import export

        folder = options.runs / entry.base
        if not folder.exists():
            export(make(entry.base, options), folder)
        return setting.replace("BASE", str(folder))
    if setting.endswith("=PHOTOGRAPHS"):
        return setting.replace("PHOTOGRAPHS", str(photographs(options.runs / "photographs")))
    return setting


def photographs(folder: Path) -> Path:
    """Return a folder of 2,000 squares, with 64 pixels a side, of scikit-learn's photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    chance, images = random.Random(0), load_sample_images().images  # noqa: S311
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2000):
        photograph = Image.fromarray(chance.choice(images))
        side = chance.randint(64, 256)
        left, top = (chance.randint(0, length - side) for length in photograph.size)
        square = photograph.resize((64, 64), box=(left, top, left + side, top + side))
        square.save(folder / f"{number}.png")
    return folder


def trained(recipe: Any, runs: Path, seconds: float = 0) -> Any:
    """Train a recipe; after so many seconds of its first stage, go on with what is learned then."""
    from vgx.console import Console
    from vgx.second.running import fit_run

    registry = vgx.discover()
    # The page of a run would take as long as a short training.
    others = tuple(plugin for plugin in registry.plugins if plugin.name != "report")
    start, run = time.monotonic(), None
    for step in vgx.train(recipe, out=runs, registry=replace(registry, plugins=others)):
        run = step.run
        if seconds and time.monotonic() - start > seconds:
            break
    assert run is not None
    if step.number < step.of and recipe.prior is not None:
        fit_run(run, (), None, None, Console())
    return run


def about(run: Any, model: Any) -> dict[str, Any]:
    """Return how it was trained."""
    import torch

    lines = [line for line in run.read_log() if line["losses"]]
    losses: dict[str, list[float]] = {}  # by term: its first and its last value
    for line in lines:
        for term, value in line["losses"].items():
            losses.setdefault(term, [value, value])[1] = value
    device, prior = model.codes.device, model.recipe.prior
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    threads = torch.get_num_threads()
    results = {
        "sampler": model.recipe.sampler.type,
        "steps": model.step,
        "of": model.recipe.train.steps,
        "images": lines[-1]["images"],
        "seconds": round(lines[-1]["seconds"]),
        "device": gpu or f"{threads} CPU core{'s' * (threads > 1)}",
        "size": model.recipe.image.size,
        "losses": losses,
    }
    if prior is not None:
        log = vgx.Run(run.path / "prior").read_log()
        first, last = (line["losses"][prior.type] for line in (log[0], log[-1]))
        second = {"type": prior.type, "steps": log[-1]["step"], "losses": [first, last]}
        results["prior"] = {**second, "seconds": round(log[-1]["seconds"])}
    return results


# --- figures -----------------------------------------------------------------------------------


def figures(run: Any, model: Any, cache: Any, n: int) -> dict[str, Any]:
    """Compare with faces that no training saw: reconstructions, and images of each sampler."""
    from vgx.evaluation.metrics import measure_reconstructions, measure_samples
    from vgx.sampling.draw import draw, prepare

    recipe, found = model.recipe, {}
    held, others = (faces(recipe, seed, n) for seed in (HELD, OTHERS))
    sets = vgx.load_recipe(recipe, {"eval.metrics": [*METRICS]}).eval.metrics
    if model.encoder is not None:
        pairs = vgx.load_recipe(recipe, {"eval.metrics": ["psnr"]}).eval.metrics
        found["reconstruction"] = measure_reconstructions(model, held, pairs)
        found["reconstruction"] |= codebook(model, held)
    counts = held.label_counts(recipe.image)
    for sampler in samplers(recipe):
        drawing = with_sampler(model, sampler)
        drawn = draw(drawing, prepare(drawing, run), n, 0, counts)
        found[sampler] = measure_samples(drawn, held, sets, cache, model=drawing)
    if taken := taken_for_real(model, held):
        found["discriminator"] = taken
    real: dict[str, float] = {}
    for metric in sets:
        features = (cache.real_features(metric.features, each) for each in (held, others))
        real |= metric.compare(*features)
    return {"n": n, "figures": {**found, "real images": real}}


def faces(recipe: Any, seed: int, n: int) -> Any:
    """Return drawn faces of another seed than that of the training."""
    from vgx.console import Console
    from vgx.data.opening import store_of
    from vgx.data.store import open_source
    from vgx.evaluation.features import real_sets

    drawn: dict[str, Any] = {"type": "drawn-faces", "seed": seed, "count": n}
    if recipe.image.classes:
        drawn["label"] = recipe.dataset.label
    dataset = vgx.load_recipe(recipe, {"dataset": drawn}).dataset
    source, _ = open_source(dataset, recipe.image)
    return real_sets(store_of(source, dataset, recipe.image, Console()), None, n).reference


def with_sampler(model: Any, sampler: str) -> Any:
    """Return the model with another sampler; its own keeps its settings."""
    if sampler == model.recipe.sampler.type:
        return model
    return replace(model, recipe=vgx.load_recipe(model.recipe, {"sampler": sampler}))


def samplers(recipe: Any) -> list[str]:
    """Return the samplers that are measured: those that draw new images, the recipe's first."""
    own = recipe.sampler.type
    if own == "posterior":  # it decodes latents of images, which is no drawing
        return []
    if own == "traversal":
        return ["prior"]
    return [own, "aggregate-gaussian"] if own == "learned-prior" else [own]


def taken_for_real(model: Any, held: Any) -> dict[str, float]:
    """Return the shares of trained and of held-out images that the discriminator takes for real.

    Far apart, it knows the training images by heart. Of a GAN whose logits have a threshold of 0
    and depend on the image alone; of others nothing.
    """
    import torch

    recipe = model.recipe
    threshold = {loss.type for loss in recipe.losses} & {"bce-adversarial", "hinge"}
    alone = model.encoder is None and not recipe.image.classes
    if not (threshold and alone and model.discriminator):
        return {}
    drawn = recipe.dataset.fallback
    trained, device = faces(recipe, drawn.seed, min(drawn.count, len(held))), model.codes.device
    shares = {}
    for name, images in (("training", trained), ("held-out", held)):
        with torch.no_grad():
            logits = torch.cat([model.discriminator(x).logits for x, _ in images.batches(device)])
        shares[f"taken-for-real-{name}"] = (logits > 0).float().mean().item()
    return shares


def codebook(model: Any, held: Any) -> dict[str, float]:
    """Return how much of its codebook a model uses for images, if it has one."""
    import torch

    from vgx.evaluation.latents import by_level, codebook_metrics
    from vgx.parts.kinds import Quantising

    if not isinstance(model.encoder, Quantising):
        return {}
    images = held.batches(model.codes.device)
    indices = torch.cat([model.posterior(some, None).indices for some, _ in images])
    return codebook_metrics(by_level(indices, model.codes.dim()), model.encoder.codes)


# --- images ------------------------------------------------------------------------------------


def draw_all(name: str, run: Any, model: Any, options: argparse.Namespace) -> None:
    """Write the images of the recipe's sampler, and those from before the second stage.

    An autoencoder that draws no new images shows held-out ones above their reconstructions, and a
    recipe with classes one row of each, from the same latents.
    """
    from vgx.sampling.draw import draw_rows, prepare

    recipe, file = model.recipe, options.results / f"{name}.png"
    if not samplers(recipe):
        real = faces(recipe, HELD, options.n).batch(0, COUNT // 2, model.codes.device)
        rows = [part for pair in zip(real.split(COLUMNS), reconstructed(model, real), strict=True)
                for part in pair]  # fmt: skip
        save(rows, file, COLUMNS, ("image", "reconstruction") * (COUNT // 2 // COLUMNS))
        return
    ready = prepare(model, run)
    rows = of_classes if recipe.image.classes else draw_rows
    drawn, captions = rows(model, ready, COUNT, 0)
    save([drawn], file, recipe.sampler.row_length or COLUMNS, captions)
    if recipe.sampler.type == "learned-prior":
        before = with_sampler(model, "aggregate-gaussian")
        drawn, captions = draw_rows(before, prepare(before, run), COUNT // 2, 0)
        save([drawn], options.results / f"{name}.before.png", COLUMNS, captions)


def of_classes(model: Any, ready: Any, n: int, seed: int) -> tuple[Any, tuple[str, ...]]:
    """Return images [classes * columns, C, H, W]: each latent in every class; names of the rows."""
    import torch

    from vgx.sampling.draw import decoded, draw_latents

    columns = min(n, COLUMNS)
    latents = draw_latents(ready, columns, seed).z.repeat(ready.classes, 1)
    labels = torch.arange(ready.classes).repeat_interleave(columns)
    return torch.cat([*decoded(model, latents, labels, ready.sampler)]), ready.names


def reconstructed(model: Any, real: Any) -> Any:
    return model.decode(model.encode(real)).split(COLUMNS)


def save(images: Sequence[Any], file: Path, columns: int, captions: Sequence[str]) -> None:
    """Write images as a grid in 256 colours, which makes the file small."""
    from PIL import Image

    made = sheet(images, columns, captions)
    made = made.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    made.save(file, optimize=True)


def sheet(images: Sequence[Any], columns: int, captions: Sequence[str] = ()) -> Any:
    """Return a Pillow image: a grid of images [N, C, H, W], each of at least 64 pixels."""
    import torch
    from PIL import Image

    from vgx.images import as_pixels, grid

    shown = torch.cat([*images])  # [N, C, H, W]
    factor = -(-LEAST // shown.shape[3])
    shown = shown.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    (pixels,) = as_pixels(grid(shown, columns, captions)[None])  # [H, W, 3]
    return Image.fromarray(pixels)


# --- all of them -------------------------------------------------------------------------------


def command(name: str, options: argparse.Namespace) -> list[object]:
    """Return the command that makes one entry in this process."""
    given = [__file__, name, "--one", "--results", options.results, "--runs", options.runs]
    given += ["--share", options.share, "--n", options.n, "--seconds", options.seconds]
    return given + [part for setting in options.set for part in ("--set", setting)]


def take(folder: Path) -> None:
    """Copy the results that did not fail into the documentation."""
    for file in sorted(folder.glob("*.json")):
        if "failed" not in json.loads(file.read_text()):
            for made in (file, *folder.glob(f"{file.stem}*.png")):
                if made.stem in (file.stem, f"{file.stem}.before"):
                    shutil.copy(made, FOLDER / made.name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bases = {entry.base for entry in ENTRIES.values()}  # each is made with the entry that needs it
    there = [name for name in ENTRIES if name not in bases]
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--results", type=Path, default=FOLDER, help="the folder of what is made")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of each entry")
    parser.add_argument("--seconds", type=float, default=0, help="end the first stage after these")
    parser.add_argument("--timeout", type=float, help="seconds after which an entry has failed")
    parser.add_argument("--n", type=int, default=2000, help="images of each side of a comparison")
    parser.add_argument("--set", action="append", default=[], help="as for vgx run, for all")
    parser.add_argument("--page", action="store_true", help="train nothing")
    parser.add_argument("--take", type=Path, help="results that are copied into the documentation")
    parser.add_argument("--one", action="store_true", help="in this process, without the page")
    options = parser.parse_args()
    names = options.names or there
    if unknown := sorted({*names} - {*there}):
        parser.error(f"no such entry: {', '.join(unknown)}; there are: {', '.join(there)}")
    failed = False
    if options.one:
        for name in names:
            make(name, options)
        return 0
    if options.take:
        take(options.take)
    elif not options.page:
        one = partial(command, options=options)
        failed = not run_all(names, one, options.results, options.jobs, options.timeout)
    if options.results == FOLDER:
        import gallery_page

        gallery_page.write()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
