"""The evaluation of a run: metrics of reconstructions, samples and latents, with their spread."""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat, starmap
from typing import Any

import torch

from vgx.check.metrics import try_metric
from vgx.console import Console
from vgx.data.classes import as_labels_of
from vgx.data.opening import store_of
from vgx.data.store import Store, announce, open_source
from vgx.distributed.group import alone, is_first
from vgx.distributed.pieces import Piece, gathered, own_pieces, require_same
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
    measure_samples,
    reconstruction_states,
    values_of,
)
from vgx.evaluation.tables import LATENT
from vgx.files import write_file
from vgx.notebook import run as people
from vgx.parts.kinds import (
    Dataset,
    Factored,
    Features,
    Labelled,
    Metric,
    PerImage,
    Sampler,
    Source,
)
from vgx.parts.registry import Registry
from vgx.parts.values import ImageSpec
from vgx.recipe.model import Recipe, value_names
from vgx.runs.directory import Run
from vgx.runs.moved import looking_back
from vgx.sampling.draw import class_names, draw, prepare
from vgx.sampling.model import Model, load_model

# Of evaluation.json. From 2 on, factors that are classes are measured as such. From 3 on, `fid` and
# `kid` are in Inception's features alone; ssim, mig, disentanglement and completeness changed.
FORMAT = 3
GROUPS = 10  # parts of the reconstructed images, of which each has a mean
PUBLISHED = 50_000  # generated images that published distances compare with all training images
TRAINED_ON = (
    "nothing was held out (eval.holdout: 0), so reconstructions and latents are measured on images "
    "that the run was trained on; they say nothing about other images"
)

UNLABELLED = (
    "the networks take labels, and these images have none that the run knows; give images with "
    "labels, as --against '{type: image-folder, path: FOLDER, label: folder}'"
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
    """Measure a run's checkpoint, write `evaluation.json` and return its content.

    Each process of a launcher computes its share, and the first one writes.
    Then `run_evaluated` of each plugin is called; an error there is a warning.
    """
    started, notices = time.perf_counter(), list[str]()
    place, dataset = run.place("evaluation.json"), settings.against or recipe.dataset
    if settings.against is None and not recipe.eval.holdout:
        notices.append(TRAINED_ON)
    with noticing(notices):
        cache = FeatureCache(recipe.image, device, lambda part: registry.owner(type(part)).version)
        announce(dataset, settings.samplers, console)
        with looking_back(run, recipe):
            source, image = _open(dataset, recipe)
        counts = _counts_before(settings, recipe, len(source))
        # Checked before anything is decoded or drawn, and again when the exact counts are known.
        settings = _possible(settings, recipe, image, counts, cache, console)
        model = load_model(run, recipe, device, best=settings.best, step=settings.step)
        holdout = None if settings.against else recipe.eval.holdout
        store = store_of(source, dataset, image, console, holdout or 0.0)
        store = with_labels_of(store, run, recipe) if settings.against else store
        sets = real_sets(store, holdout, settings.n)
        counts = counts_of(sets, settings.n)
        settings = _possible(settings, recipe, image, counts, cache, console, model)
        require_same(f"{model.sha256} {store.content} {settings}", "files or metrics")
        measured = _measured(model, sets, settings, cache, source, store, console)
    parts = feature_parts(settings.metrics).values()
    notices += [*filter(None, (part.note(recipe.image) for part in parts)), *_few(settings, sets)]
    results = {
        "format": FORMAT,
        "step": model.step,
        "checkpoint": "best" if settings.best else "newest" if settings.step is None else "step",
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
        "device": str(device),
        "seeds": list(range(settings.seeds)),
        "data": _data_of(dataset, store),
        "features": [
            {"part": part.model_dump(mode="json"), "sha256": cache.digest(part)} for part in parts
        ],
        "metrics": [metric.model_dump(mode="json") for metric in settings.metrics],
        **measured,
        "notices": list(dict.fromkeys(notices)),
    }
    if is_first():
        write_file(place, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        with alone():
            _call_plugins(run, registry, console)
    return results


def _call_plugins(run: Run, registry: Registry, console: Console) -> None:
    for plugin in registry.plugins:
        if failure := plugin.call("run_evaluated", run=people.Run(run.path)):
            text = f"plugin {plugin.title} failed after the evaluation of {run.path}: {failure}"
            console.warn(text)


def _data_of(dataset: Dataset, store: Store) -> dict[str, Any]:
    dumped = dataset.model_dump(mode="json")
    return {"dataset": dumped, "content": store.content, "pictures": len(store.images)}


def _counts_before(settings: Settings, recipe: Recipe, images: int) -> Counts:
    """Return the largest counts that there can be, before the images are split."""
    most = min(settings.n, images)
    held = most if recipe.eval.holdout and settings.against is None else 0
    return Counts(most, most, settings.n, held)


def _measured(
    model: Model,
    sets: RealSets,
    settings: Settings,
    cache: FeatureCache,
    source: Source,
    store: Store,
    console: Console,
) -> dict[str, Any]:
    """Return all values: of reconstructions, of each sampler's images, of the latents."""
    with console.progress("Evaluating", _work(settings, sets, model)) as update:

        def advance(more: int) -> None:
            update(more, ())

        return {
            "reconstruction": _reconstruction(model, sets.reconstructed, settings, advance),
            "generation": measure_generation(
                model, sets.reference, settings, cache, advance, sets.held_out
            ),
            "latent": _latent(model, sets.reconstructed, settings, source, store, advance),
        }


def _open(dataset: Dataset, recipe: Recipe) -> tuple[Source, ImageSpec]:
    """Open the images; those of another data set have labels only if the networks take them.

    Raises `RecipeError` for another data set with other classes than the run's.
    """
    own, image = dataset == recipe.dataset, recipe.image
    try:
        if own or recipe.takes_labels:
            source, _ = open_source(dataset, image)
            if own or isinstance(source, Labelled):
                return source, image
        image = replace(image, classes=0)
        return open_source(dataset, image)[0], image
    except RecipeError as error:
        wrong, of_labels, _ = str(error).partition("; set image.classes")
        if own or not of_labels:
            raise
        advice = "its networks take other labels, or none; write this data set without labels"
        raise RecipeError(f"--against: {wrong}: {advice}") from error


def with_labels_of(store: Store, run: Run, recipe: Recipe) -> Store:
    """Return the images with the labels that the run has for classes of the same names."""
    if store.labels is None:
        return store
    names, own = class_names(run, recipe), store.labels[: len(store.images)]
    return replace(store, labels=as_labels_of(own, store.names, names), names=names)


def _possible(
    settings: Settings,
    recipe: Recipe,
    given: ImageSpec,
    counts: Counts,
    cache: FeatureCache,
    console: Console,
    model: Model | None = None,
) -> Settings:
    """Return the settings with the metrics that can be computed, whose networks are then built.

    The reason why one cannot be computed is printed, or raised if the metric was named. Metrics
    that use the model are tried when it is there. `given` says whether the images have labels.
    """
    check_names(settings.metrics)
    labelled = given.classes > 0 or not recipe.takes_labels
    image, metrics = recipe.image, list[Metric]()
    for metric in settings.metrics:
        try:
            if metric.pairs and not labelled:
                raise RecipeError(f"metric {metric.type}: {UNLABELLED}")
            check_metric(metric, image, counts)
            try_metric(metric, image, cache.network, model)
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
    sizes = {False: min(settings.n, len(sets.reference)), True: len(sets.reconstructed)}
    notices = [
        f"{metric.type} of {sizes[metric.pairs]:,} images a side means little by itself: with "
        f"fewer than {metric.wants:,} it is far from its value for many images; compare it only "
        "with values for as many images"
        for metric in settings.metrics
        if sizes[metric.pairs] < metric.wants
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
    states = reconstruction_states(model, real, metrics, advance)
    figures = _statistics([values_of(states)], metrics)
    for state in states:
        if isinstance(state, PerImage):
            for name, values in state.per_image().items():
                figures[name] |= over_images(values)
    return {"pictures": len(real), "split": real.split, "figures": figures}


def over_images(values: Sequence[float]) -> dict[str, Any]:
    """Return the standard error of a mean over images, and the means of `GROUPS` parts of these.

    The parts are of the same images for every run that is measured on these images, so two runs can
    be compared part by part.
    """
    groups = min(GROUPS, len(values))
    return {
        "spread": statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0,
        "groups": [statistics.fmean(values[i::groups]) for i in range(groups)],
    }


def measure_generation(
    model: Model,
    real: RealImages,
    settings: Settings,
    cache: FeatureCache,
    advance: Advance,
    held: RealImages | None = None,
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
            samples = draw(drawing, prepared, settings.n, seed, counts, own_pieces())
            values.append(measure_samples(samples, real, metrics, cache, advance, drawing, held))
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
    part = model.recipe.encoder
    if part is None or (part.conditional and real.labels is None):
        return None
    posteriors = starmap(model.posterior, real.batches(model.codes.device))
    numbers, pieces = range(len(real))[own_pieces()], list[Piece]()
    for piece in gathered(map(latents.numbers_of, posteriors, numbers, repeat(model.encoder))):
        pieces.append(piece)
        advance(len(piece["mean"]))
    encoded = latents.Latents.joined(pieces, model.encoder)
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
