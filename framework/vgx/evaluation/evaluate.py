"""A run as figures that can be trusted: reconstructions, samples and latents, with their spread."""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vgx.console import Console
from vgx.data.store import Store, open_source, open_with_progress
from vgx.errors import noticing
from vgx.evaluation import latents
from vgx.evaluation.metrics import (
    Advance,
    Eyes,
    Sides,
    of_reconstructions,
    of_samples,
    ready,
    sides,
)
from vgx.files import write_file
from vgx.parts.kinds import Comparison, Dataset, Factored, Features, Metric, Sampler, Source
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe, directions
from vgx.runs.directory import Run
from vgx.sampling.model import Model, load_model

FORMAT = 2  # of evaluation.json; from 2 on, factors that are classes are measured as such
TRAINED_ON = (
    "nothing was held out (eval.holdout: 0), so reconstructions and latents are judged on pictures "
    "that the run was trained on: they say nothing of others"
)


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    metrics: tuple[Metric, ...]
    samplers: tuple[Sampler, ...]
    against: Dataset | None = None  # other pictures than the run's own
    n: int = 10_000  # pictures on each side, at most
    seeds: int = 3
    best: bool = False  # the checkpoint that was best by `eval.best`, not the newest


def evaluate(
    run: Run,
    recipe: Recipe,
    asked: Asked,
    registry: Registry,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """Measure a run's checkpoint, write `evaluation.json` and return what it says."""
    began, notices = time.perf_counter(), list[str]()
    dataset = asked.against or recipe.dataset
    if asked.against is None and not recipe.eval.holdout:
        notices.append(TRAINED_ON)
    with noticing(notices):
        source, store = _opened(dataset, recipe, console)
        model = load_model(run, recipe, device, ("encoder", "decoder"), best=asked.best)
        chosen = sides(store, None if asked.against else recipe.eval.holdout, asked.n)
        eyes = Eyes(recipe.image, device, lambda part: registry.owner(type(part)).version)
        parts = _features(asked.metrics)
        with console.progress("Judging", _work(asked, chosen, model, parts)) as update:

            def advance(more: int) -> None:
                update(more, "pictures")

            measured = {
                "reconstruction": _reconstruction(model, chosen, asked, device, advance),
                "generation": _generation(model, chosen, asked, eyes, advance),
                "latent": _latent(model, chosen, asked, device, (source, store), advance),
            }
    notices += [note for part in parts if (note := part.note(recipe.image))]
    notices += _few(asked, chosen)
    said = {
        "format": FORMAT,
        "step": model.step,
        "checkpoint": "best" if asked.best else "newest",
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began, 3),
        "device": str(device),
        "seeds": list(range(asked.seeds)),
        "data": {
            "dataset": dataset.model_dump(mode="json"),
            "content": store.content,
            "pictures": len(store.images),
        },
        "features": [
            {"part": part.model_dump(mode="json"), "sha256": eyes.digest(part)} for part in parts
        ],
        "metrics": [metric.model_dump(mode="json") for metric in asked.metrics],
        **measured,
        "notices": list(dict.fromkeys(notices)),
    }
    write_file(run.path / "evaluation.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    return said


def _opened(dataset: Dataset, recipe: Recipe, console: Console) -> tuple[Source, Store]:
    # The labels of another data set, if it has any, are not those that the decoder knows.
    image = recipe.image if dataset == recipe.dataset else replace(recipe.image, classes=0)
    source, _ = open_source(dataset, image)
    return source, open_with_progress(source, dataset, image, console)


def _features(metrics: Sequence[Metric]) -> list[Features]:
    """Return the networks that sets of pictures are compared in, each once."""
    compared = [m.features for m in metrics if not m.pairs and isinstance(m, Comparison)]
    return list({part.model_dump_json(): part for part in compared}.values())


def _few(asked: Asked, chosen: Sides) -> list[str]:
    """Say which metrics of sets are given fewer pictures than they need to say much."""
    least = min(asked.n, len(chosen.held_against))
    return [
        f"{metric.type} of {least:,} pictures a side says little of itself: with fewer than "
        f"{metric.wants:,} it is far from what many would give; compare it with figures of as many"
        for metric in asked.metrics
        if not metric.pairs and least < metric.wants
    ]


def _work(asked: Asked, chosen: Sides, model: Model, parts: list[Features]) -> int:
    """Return how many pictures will be looked at."""
    encoded = 2 * len(chosen.shown) if model.encoder else 0
    sets = any(not metric.pairs for metric in asked.metrics)
    generated = sets * len(asked.samplers) * asked.seeds * asked.n
    return encoded + len(parts) * len(chosen.held_against) + generated


def _spread(values: Sequence[dict[str, float]], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return each number's mean over seeds and its standard deviation, 0 where nothing is drawn."""
    better = directions(metrics)
    return {
        name: {
            "mean": statistics.fmean(each := [numbers[name] for numbers in values]),
            "spread": statistics.stdev(each) if len(each) > 1 else 0.0,
            "values": each,
            "better": better.get(name),
        }
        for name in values[0]
    }


def _reconstruction(
    model: Model, chosen: Sides, asked: Asked, device: torch.device, advance: Advance
) -> dict[str, Any] | None:
    metrics = [metric for metric in asked.metrics if metric.pairs]
    if model.encoder is None or not metrics:
        return None
    numbers = of_reconstructions(model, chosen.shown, metrics, device, advance)
    return {
        "pictures": len(chosen.shown),
        "split": chosen.split[0],
        "figures": _spread([numbers], metrics),
    }


def _generation(
    model: Model, chosen: Sides, asked: Asked, eyes: Eyes, advance: Advance
) -> list[dict[str, Any]]:
    metrics = [metric for metric in asked.metrics if not metric.pairs]
    if not metrics:
        return []
    for part in _features(metrics):
        eyes.of_real(part, chosen.held_against, advance)
    found = []
    for sampler in asked.samplers:
        drawing = replace(model, recipe=model.recipe.model_copy(update={"sampler": sampler}))
        drawer = ready(drawing)
        numbers = [
            of_samples(drawing, drawer, chosen.held_against, metrics, seed, asked.n, eyes, advance)
            for seed in range(asked.seeds)
        ]
        found.append({
            "sampler": sampler.model_dump(mode="json"),
            "pictures": asked.n,
            "real": len(chosen.held_against),
            "split": chosen.split[1],
            "figures": _spread(numbers, metrics),
        })  # fmt: skip
    return found


@torch.no_grad()
def _latent(
    model: Model,
    chosen: Sides,
    asked: Asked,
    device: torch.device,
    data: tuple[Source, Store],
    advance: Advance,
) -> dict[str, Any] | None:
    if model.encoder is None:
        return None
    posteriors = []
    for images in chosen.shown.chunks(device):
        posteriors.append(model.encoder(images))
        advance(len(images))
    seen, (source, store) = latents.Latents.of(posteriors), data
    factors: dict[str, list[float]] = {}
    # Where pictures were left out, a row of the store is no longer a number of the source.
    if isinstance(source, Factored) and len(store.images) == len(source):
        known = [source.factors(int(row)) for row in chosen.shown.rows]
        factors = {name: [each[name] for each in known] for name in known[0]}
    numbers = [
        latents.figures(seen, seed) | (latents.of_factors(seen, factors, seed) if factors else {})
        for seed in range(asked.seeds)
    ]
    return {
        "pictures": len(chosen.shown),
        "split": chosen.split[0],
        "dimensions": seen.mean.shape[1],
        "kl_by_dimension": latents.kl_by_dimension(seen),
        "figures": _spread(numbers, ()),
    }
