"""The evaluation of a run: metrics of reconstructions, samples and latents, with their spread."""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vgx.check.metrics import try_metric
from vgx.console import Console
from vgx.data.opening import store_of
from vgx.data.store import Store, announce, open_source
from vgx.errors import HubError, RecipeError, noticing
from vgx.evaluation import latents
from vgx.evaluation.features import Advance, FeatureCache, RealImages, RealSets, real_sets
from vgx.evaluation.metrics import (
    Counts,
    check_metric,
    check_names,
    check_sampler,
    counts_of,
    feature_parts,
    measure_reconstructions,
    measure_samples,
)
from vgx.evaluation.tables import LATENT
from vgx.files import write_file
from vgx.parts.kinds import Dataset, Factored, Features, Metric, Sampler, Source
from vgx.parts.registry import Registry
from vgx.parts.values import ImageSpec
from vgx.recipe.model import Recipe, value_names
from vgx.runs.directory import Run
from vgx.runs.moved import looking_back
from vgx.sampling.draw import draw, prepare
from vgx.sampling.model import Model, load_model

# Of evaluation.json. From 2 on, factors that are classes are measured as such. From 3 on, `fid` and
# `kid` are in Inception's features alone; ssim, mig, disentanglement and completeness changed.
FORMAT = 3
PUBLISHED = 50_000  # generated images that published distances compare with all training images
TRAINED_ON = (
    "nothing was held out (eval.holdout: 0), so reconstructions and latents are measured on images "
    "that the run was trained on; they say nothing about other images"
)


@dataclass(frozen=True)
class Settings:
    """What is to be measured."""

    metrics: tuple[Metric, ...]
    named: bool  # by the user: then a metric that cannot be computed is an error, else left out
    samplers: tuple[Sampler, ...]
    against: Dataset | None = None  # other images than the run's
    n: int = 10_000  # images of each set, at most
    seeds: int = 3
    best: bool = False  # the checkpoint that was best by `eval.best`, not the newest
    step: int | None = None  # the checkpoint of this step, not the newest


def evaluate_run(
    run: Run,
    recipe: Recipe,
    settings: Settings,
    registry: Registry,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """Measure a run's checkpoint, write `evaluation.json` and return its content."""
    started, notices = time.perf_counter(), list[str]()
    place, dataset = run.place("evaluation.json"), settings.against or recipe.dataset
    if settings.against is None and not recipe.eval.holdout:
        notices.append(TRAINED_ON)
    with noticing(notices):
        cache = FeatureCache(recipe.image, device, lambda part: registry.owner(type(part)).version)
        announce(dataset, settings.samplers, console)
        with looking_back(run, recipe):
            source, image = _open(dataset, recipe)
        most = min(settings.n, len(source))
        # Checked before anything is decoded or drawn, and again when the exact counts are known.
        settings = _possible(settings, recipe, Counts(most, most, settings.n), cache, console)
        model = _model(run, recipe, device, settings)
        holdout = None if settings.against else recipe.eval.holdout
        store = store_of(source, dataset, image, console, holdout or 0.0)
        sets = real_sets(store, holdout, settings.n)
        counts = counts_of(sets, settings.n)
        settings = _possible(settings, recipe, counts, cache, console)
        with console.progress("Evaluating", _work(settings, sets, model)) as update:

            def advance(more: int) -> None:
                update(more, ())

            measured = {
                "reconstruction": _reconstruction(model, sets.reconstructed, settings, advance),
                "generation": measure_generation(model, sets.reference, settings, cache, advance),
                "latent": _latent(model, sets.reconstructed, settings, source, store, advance),
            }
    parts = feature_parts(settings.metrics).values()
    notices += [note for part in parts if (note := part.note(recipe.image))]
    notices += _few(settings, sets)
    results = {
        "format": FORMAT,
        "step": model.step,
        "checkpoint": "best" if settings.best else "newest" if settings.step is None else "step",
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
        "device": str(device),
        "seeds": list(range(settings.seeds)),
        "data": {
            "dataset": dataset.model_dump(mode="json"),
            "content": store.content,
            "pictures": len(store.images),
        },
        "features": [
            {"part": part.model_dump(mode="json"), "sha256": cache.digest(part)} for part in parts
        ],
        "metrics": [metric.model_dump(mode="json") for metric in settings.metrics],
        **measured,
        "notices": list(dict.fromkeys(notices)),
    }
    write_file(place, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


def _model(run: Run, recipe: Recipe, device: torch.device, settings: Settings) -> Model:
    networks = ("encoder", "decoder")
    return load_model(run, recipe, device, networks, best=settings.best, step=settings.step)


def _open(dataset: Dataset, recipe: Recipe) -> tuple[Source, ImageSpec]:
    # The decoder does not know the labels of another data set.
    image = recipe.image if dataset == recipe.dataset else replace(recipe.image, classes=0)
    source, _ = open_source(dataset, image)
    return source, image


def _possible(
    settings: Settings, recipe: Recipe, counts: Counts, cache: FeatureCache, console: Console
) -> Settings:
    """Return the settings with the metrics that can be computed, whose networks are then built.

    The reason why one cannot be computed is printed, or raised if the metric was named.
    """
    check_names(settings.metrics)
    image, metrics = recipe.image, list[Metric]()
    for metric in settings.metrics:
        try:
            check_metric(metric, image, counts)
            try_metric(metric, image, cache.network)
        except (RecipeError, HubError) as error:
            if settings.named:
                raise
            console.print(f"Left out: {str(error).splitlines()[0]}")
        else:
            metrics.append(metric)
    if any(not metric.pairs for metric in metrics):
        for sampler in settings.samplers:
            check_sampler(sampler, image)
    return replace(settings, metrics=tuple(metrics))


def _few(settings: Settings, sets: RealSets) -> list[str]:
    """Return notices about metrics of sets that get fewer images than they need."""
    least = min(settings.n, len(sets.reference))
    notices = [
        f"{metric.type} of {least:,} images a side means little by itself: with fewer than "
        f"{metric.wants:,} it is far from its value for many images; compare it only with values "
        "for as many images"
        for metric in settings.metrics
        if not metric.pairs and least < metric.wants
    ]
    real, generated = sets.reference, settings.n
    only_pairs = all(metric.pairs for metric in settings.metrics)
    if not only_pairs and (generated < PUBLISHED or len(real) < real.of):
        notices.append(
            f"{generated:,} generated images were compared with {len(real):,} of {real.of:,} real "
            f"ones; published distances compare {PUBLISHED:,} with all training images"
        )
    return notices


def _work(settings: Settings, sets: RealSets, model: Model) -> int:
    """Return how many images will be processed, for the progress bar."""
    paired = any(metric.pairs for metric in settings.metrics)
    of_sets = any(not metric.pairs for metric in settings.metrics)
    # Images are encoded for latents, and once more for reconstructions.
    encoded = (1 + paired) * len(sets.reconstructed) if model.encoder else 0
    generated = of_sets * len(settings.samplers) * settings.seeds * settings.n
    return encoded + len(feature_parts(settings.metrics)) * len(sets.reference) + generated


def _statistics(
    values: Sequence[dict[str, float]], metrics: Sequence[Metric] = ()
) -> dict[str, Any]:
    """Return the mean and the standard deviation of each value over seeds; 0 for a single seed.

    Of a metric's value also: which is better, the features that it is in, and what it means.
    """
    metric_of = {name: metric for metric in metrics for name in value_names(metric)}
    return {
        name: {
            "mean": statistics.fmean(each := [of_seed[name] for of_seed in values]),
            "spread": statistics.stdev(each) if len(each) > 1 else 0.0,
            "values": each,
            **_about(name, metric_of.get(name)),
        }
        for name in values[0]
    }


def _about(name: str, metric: Metric | None) -> dict[str, str | None]:
    if metric is None:
        return {"better": None, "features": None, "meaning": LATENT.get(name)}
    parts = (getattr(metric, field) for field in type(metric).model_fields)
    features = next((part for part in parts if isinstance(part, Features)), None)
    text = (metric.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return {
        "better": metric.better,
        "features": features.title() if features else None,
        "meaning": metric.gives.get(name, text) if isinstance(metric.gives, Mapping) else text,
    }


def _reconstruction(
    model: Model, real: RealImages, settings: Settings, advance: Advance
) -> dict[str, Any] | None:
    metrics = [metric for metric in settings.metrics if metric.pairs]
    if model.encoder is None or not metrics:
        return None
    values = measure_reconstructions(model, real, metrics, advance)
    return {
        "pictures": len(real),
        "split": real.split,
        "figures": _statistics([values], metrics),
    }


def measure_generation(
    model: Model, real: RealImages, settings: Settings, cache: FeatureCache, advance: Advance
) -> list[dict[str, Any]]:
    """Return the values of each sampler's images against real ones, with their spread."""
    metrics = [metric for metric in settings.metrics if not metric.pairs]
    if not metrics:
        return []
    recipes = (model.recipe.model_copy(update={"sampler": part}) for part in settings.samplers)
    models = [replace(model, recipe=recipe) for recipe in recipes]
    all_prepared = [prepare(drawing) for drawing in models]  # what fails there fails at once
    for part in feature_parts(metrics).values():
        cache.real_features(part, real, advance)
    results, counts = [], real.label_counts(model.recipe.image)
    for sampler, drawing, prepared in zip(settings.samplers, models, all_prepared, strict=True):
        values = []
        for seed in range(settings.seeds):
            samples = draw(drawing, prepared, settings.n, seed, counts)
            values.append(measure_samples(samples, real, metrics, cache, advance))
        results.append({
            "sampler": sampler.model_dump(mode="json"),
            "pictures": settings.n,
            "real": len(real),
            "real_of": real.of,
            "split": real.split,
            "figures": _statistics(values, metrics),
        })  # fmt: skip
    return results


@torch.no_grad()
def _latent(
    model: Model,
    real: RealImages,
    settings: Settings,
    source: Source,
    store: Store,
    advance: Advance,
) -> dict[str, Any] | None:
    if model.encoder is None:
        return None
    posteriors = []
    for images in real.batches(model.codes.device):
        posteriors.append(model.encoder(images))
        advance(len(images))
    encoded = latents.Latents.of(posteriors, model.encoder)
    factors: dict[str, list[float]] = {}
    # When the store lacks some images, its rows are not the numbers of the source.
    if isinstance(source, Factored) and len(store.images) == len(source):
        of_images = [source.factors(int(row)) for row in real.rows]
        factors = {name: [each[name] for each in of_images] for name in of_images[0]}
    values = []
    for seed in range(settings.seeds):
        of_factors = latents.factor_metrics(encoded, factors, seed) if factors else {}
        values.append(latents.latent_metrics(encoded, seed) | of_factors)
    return {
        "pictures": len(real),
        "split": real.split,
        "dimensions": encoded.mean.shape[1],
        "kl_by_dimension": latents.kl_by_dimension(encoded),
        "figures": _statistics(values),
    }
