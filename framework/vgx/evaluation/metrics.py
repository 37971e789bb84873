"""Metrics of a model: of its reconstructions, and of the images that its sampler draws.

Letters: N images, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import starmap
from typing import NamedTuple

import torch
from torch import Tensor

from vgx import rng
from vgx.check.metrics import state_of, try_metric, update
from vgx.data.store import Store
from vgx.distributed.pieces import Piece, gathered, own_pieces
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.evaluation.features import (
    Advance,
    FeatureCache,
    RealImages,
    RealSets,
    ignore,
    real_sets,
)
from vgx.images import levels
from vgx.parts.kinds import Comparison, Features, Metric, MetricState, Sampler
from vgx.parts.values import ImageSpec
from vgx.recipe.model import Eval, Recipe, value_names
from vgx.sampling.draw import draw, prepare
from vgx.sampling.model import Model, current_model


class Counts(NamedTuple):
    """How many images the metrics of an evaluation get."""

    reconstructed: int
    real: int  # that generated images are compared with
    generated: int
    held_out: int = 0


def check_metric(metric: Metric, image: ImageSpec, counts: Counts) -> None:
    """Raise `RecipeError` if a metric cannot be computed for images of this size or number."""
    sides = (counts.reconstructed,) * 2 if metric.pairs else (counts.real, counts.generated)
    if reason := metric.why_not(image, *sides):
        raise RecipeError(f"metric {metric.type}: {reason}")
    if metric.held_out and not counts.held_out:
        message = "it compares with images that the training did not see, and there are none here"
        raise RecipeError(f"metric {metric.type}: {message}; train with --set eval.holdout=0.1")


def check_names(metrics: Sequence[Metric]) -> None:
    """Raise `RecipeError` if two metrics give a value of the same name."""
    names: set[str] = set()
    for metric in metrics:
        _distinct(names, value_names(metric))
        names |= {*value_names(metric)}


def check_metrics(metrics: Sequence[Metric], image: ImageSpec, counts: Counts) -> None:
    """Raise `RecipeError` if one of the metrics cannot be computed."""
    for metric in metrics:
        check_metric(metric, image, counts)


def try_metrics(recipe: Recipe, images: int | None = None) -> None:
    """Build the metrics of a training, and compare random features with them.

    `images` is their largest number, if it is known; none of them is needed. Raises `RecipeError`
    for what would fail only after the first steps.
    """
    settings, image = recipe.eval, recipe.image
    if settings.every is None:
        return
    real = settings.n if images is None else min(settings.n, images)
    held = real if settings.holdout else 0
    check_metrics(settings.metrics, image, Counts(real, real, settings.n, held))
    if any(not metric.pairs for metric in settings.metrics):
        check_sampler(recipe.sampler, image)
    generator = rng.generator(0, "check")
    for metric in settings.metrics:
        shape = settings.n, try_metric(metric, image)  # N, F
        if isinstance(metric, Comparison) and not metric.pairs:
            sets = range(3 if metric.held_out else 2)
            metric.compare(*[torch.rand(shape, generator=generator) for _ in sets])


def check_images(settings: Eval, image: ImageSpec, store: Store) -> None:
    """Raise `RecipeError` if there are too few images for the metrics of a training."""
    if settings.every is not None:
        sets = real_sets(store, settings.holdout, settings.n)
        check_metrics(settings.metrics, image, counts_of(sets, settings.n))


def counts_of(sets: RealSets, generated: int) -> Counts:
    """Return how many images there are with these real ones."""
    return Counts(len(sets.reconstructed), len(sets.reference), generated, len(sets.held_out or ()))


def measure_training(
    engine: Engine, store: Store, step: int, cache: FeatureCache
) -> dict[str, float]:
    """Measure the recipe's metrics after a step; the training is left as it was.

    Each process computes its share.
    """
    recipe, settings = engine.recipe, engine.recipe.eval
    model = current_model(engine, step)
    sets = real_sets(store, settings.holdout, settings.n)
    reconstructed, reference = sets
    with rng.ambient(recipe.train.seed, "evaluation", step), evaluating(model.networks):
        values = measure_reconstructions(model, reconstructed, settings.metrics)
        if any(not metric.pairs for metric in settings.metrics):
            counts = reference.label_counts(recipe.image)
            samples = draw(model, prepare(model), settings.n, 0, counts, own_pieces())
            of_samples = measure_samples(
                samples, reference, settings.metrics, cache, model=model, held=sets.held_out
            )
            values = _merged(values, of_samples)
    return values


def measure_reconstructions(
    model: Model, real: RealImages, metrics: Sequence[Metric], advance: Advance = ignore
) -> dict[str, float]:
    """Compare real images with what the decoder makes of their posterior means.

    Metrics that compare sets of images are left out.
    """
    return values_of(reconstruction_states(model, real, metrics, advance))


def values_of(states: Sequence[MetricState]) -> dict[str, float]:
    """Return the values of the metrics that have these states."""
    return _merged(*(state.compute() for state in states))


@torch.no_grad()
def reconstruction_states(
    model: Model, real: RealImages, metrics: Sequence[Metric], advance: Advance = ignore
) -> list[MetricState]:
    """Return states of metrics after all real images and what the decoder makes of them.

    Each process decodes its share of them.
    """
    states = [state_of(metric, model.recipe.image, model) for metric in metrics if metric.pairs]
    if not states:
        return []
    device = model.codes.device
    all_labels, done = real.labels_on(device), 0

    def decoded(images: Tensor, labels: Tensor | None) -> Piece:
        # float16 has these whole numbers, in half the bytes to send.
        return {"levels": levels(model.decode(model.encode(images, labels), labels)).half()}

    for piece in gathered(starmap(decoded, real.batches(device))):
        recon = piece["levels"].to(device).float() / 255
        images = real.batch(done, len(recon), device)
        labels = None if all_labels is None else all_labels[done : done + len(images)]
        for state in states:
            update(state, (images, recon), labels)
        done += len(images)
        advance(len(images))
    return states


@torch.no_grad()
def measure_samples(
    samples: Iterator[Tensor],
    real: RealImages,
    metrics: Sequence[Metric],
    cache: FeatureCache,
    advance: Advance = ignore,
    model: Model | None = None,
    held: RealImages | None = None,
) -> dict[str, float]:
    """Compare real images with samples, which come in batches [N, C, H, W] in [0, 1].

    Of several processes each gives its share of the batches, as `own_pieces` has it. Metrics that
    compare pairs of images are left out. `model` made the samples, and `held` are images that were
    held out; only metrics that use them need them.
    """
    of_sets = [metric for metric in metrics if not metric.pairs]
    compared = [metric for metric in of_sets if isinstance(metric, Comparison)]
    others = [metric for metric in of_sets if not isinstance(metric, Comparison)]
    states = [state_of(metric, cache.image, model) for metric in others]
    labels = real.labels_on(cache.device)
    parts = feature_parts(metrics)
    features: dict[str, list[Tensor]] = {name: [] for name in parts}
    done = 0

    def looked_at(batch: Tensor) -> Piece:
        images = as_saved(batch)
        of_parts = {name: cache.features(part, images) for name, part in parts.items()}
        return of_parts | ({"images": images} if states else {})

    for piece in gathered(map(looked_at, samples)):
        for name in parts:
            features[name].append(piece[name])
        count = len(next(iter(piece.values())))
        if states and done < len(real):
            images = piece["images"].to(cache.device)
            beside = real.batch(done, count, cache.device)  # as many of each side
            own = None if labels is None else labels[done : done + len(beside)]
            for state in states:
                update(state, (beside, images[: len(beside)]), own)
        done += count
        advance(count)
    values = []
    for metric in compared:
        expected = cache.real_features(metric.features, real).to(cache.device)  # [N, F]
        generated = torch.cat(features[metric.features.model_dump_json()]).to(cache.device)
        sets = [expected, generated]
        if metric.held_out and held is not None:
            sets.append(cache.real_features(metric.features, held).to(cache.device))  # [K, F]
        values.append(metric.compare(*sets))
    return _merged(*values, *(state.compute() for state in states))


def feature_parts(metrics: Sequence[Metric]) -> dict[str, Features]:
    """Return the feature networks that metrics of sets need, each once, by their settings."""
    compared = [m.features for m in metrics if not m.pairs and isinstance(m, Comparison)]
    return {part.model_dump_json(): part for part in compared}


def as_saved(images: Tensor) -> Tensor:
    """[N, C, H, W]  Round images to the values that a PNG can hold, as those of real images are."""
    return levels(images) / 255


def check_sampler(sampler: Sampler, image: ImageSpec) -> None:
    """Raise `RecipeError` for a sampler of given images, which cannot be evaluated."""
    if sampler.pictures(image) is not None:
        message = "shows images that it is given; choose another sampler to evaluate"
        raise RecipeError(f"sampler {sampler.type}: {message}")


def _merged(*values: dict[str, float]) -> dict[str, float]:
    """Join the values of several metrics. Raises `RecipeError` when a name occurs twice.

    `check_names` has compared the names that metrics declare; these are those that they return.
    """
    merged: dict[str, float] = {}
    for some in values:
        _distinct(merged, some)
        merged |= some
    return merged


def _distinct(names: Collection[str], more: Collection[str]) -> None:
    if twice := {*names} & {*more}:
        message = f"two metrics give a value '{min(twice)}'; use one of them at a time"
        raise RecipeError(message)
