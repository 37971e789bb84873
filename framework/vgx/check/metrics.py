"""Metrics and their features on a few random images.

Letters: N images, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import alike, call, contract, read_only
from vgx.engine.engine import Engine
from vgx.parts.base import BrokenError
from vgx.parts.contract import check_features, check_per_image, check_values
from vgx.parts.kinds import Comparison, Features, Metric, MetricState, PerImage, UsesModel
from vgx.parts.values import ImageSpec
from vgx.recipe.model import value_names
from vgx.sampling.model import Model, current_model

IMAGES = 8


def state_of(part: Metric, image: ImageSpec, model: Model | None) -> MetricState:
    """Return a new state of a metric, which is given the model if it uses it."""
    state: Any = call(part, part.build, image)
    if isinstance(state, UsesModel) and model is not None:
        call(part, state.use, model)
    return cast("MetricState", state)


def update(state: MetricState, sets: Sequence[Tensor], labels: Tensor | None) -> None:
    """Add a batch of each set; a state that uses the model also gets the labels [B] of the first.

    The sets are real images [B, C, H, W], generated ones, and for some metrics held-out ones.
    """
    further = (labels,) if isinstance(state, UsesModel) else ()
    add: Callable[..., None] = state.update
    add(*sets, *further)


def try_metric(
    part: Metric,
    image: ImageSpec,
    network_of: Callable[[Features], nn.Module] | None = None,
    model: Model | None = None,
) -> int:
    """Compute a metric of random images twice, before any image of the run is drawn.

    `network_of` returns the network of its features; by default it is built. A metric that uses the
    model is built, and computed only if there is a `model`. Returns how many features the metric
    compares, 0 for one that compares images. Raises `BrokenError` for a metric, or for features,
    that break their contract.
    """
    generator = rng.generator(0, "check")
    count = 3 if part.held_out else 2  # real and generated images, and held-out ones
    # [N, C, H, W] each
    sets = [torch.rand(IMAGES, *image.shape, generator=generator) for _ in range(count)]
    in_features = part if isinstance(part, Comparison) and not part.pairs else None
    if in_features:
        features = in_features.features
        build = network_of or (lambda part: part.build(image))
        network = built_features(features, build)
        device = next((tensor.device for tensor in network.state_dict().values()), sets[0].device)
        sets = [try_features(features, network, images.to(device)) for images in sets]  # [N, F]
    width = sets[0].shape[1] if in_features else 0
    if part.why_not(image, IMAGES, IMAGES):
        return width  # it needs more images

    uses = not in_features and isinstance(state_of(part, image, None), UsesModel)
    if uses and model is None:
        return 0  # tried again when the networks are there
    device = model.codes.device if uses and model is not None else sets[0].device
    sets = [images.to(device) for images in sets]
    labels = torch.arange(IMAGES, device=device) % image.classes if image.classes else None  # [N]

    def computed(ambient: int) -> dict[str, float]:
        given = [each.clone() for each in sets]
        with rng.ambient(ambient, "check"), torch.no_grad():
            single: Any = {}
            if in_features:
                values = call(part, in_features.compare, *given)
            else:
                state = state_of(part, image, model)
                _require(part, state, "update", "compute")
                call(part, update, state, given, labels)
                values = call(part, state.compute)
                single = call(part, state.per_image) if isinstance(state, PerImage) else {}
        with contract(part):
            check_values(values, value_names(part))
            check_per_image(single, values, IMAGES)
        if not all(map(torch.equal, given, sets)):
            raise BrokenError(part, "it changes the images that it is given in place")
        return dict(values)

    with read_only(part, model.networks if uses and model else ()):
        if computed(0) != computed(1):
            raise BrokenError(part, "the same images give other numbers: draw no random ones")
    return width


def try_metrics_of_model(engine: Engine) -> None:
    """Compute the metrics of a training that use the model, with its new networks."""
    recipe = engine.recipe
    for metric in recipe.eval.metrics if recipe.eval.every else ():
        if isinstance(state_of(metric, recipe.image, None), UsesModel):
            try_metric(metric, recipe.image, model=current_model(engine, 0))


def built_features(part: Features, build: Callable[[Features], nn.Module]) -> nn.Module:
    """Return the network of features. Raises `BrokenError` unless it is a module."""
    network: object = call(part, build, part)
    if not isinstance(network, nn.Module):
        raise BrokenError(part, f"its build() gives a {type(network).__name__}, no nn.Module")
    return network


def try_features(part: Features, network: nn.Module, images: Tensor) -> Tensor:
    """[N, F]  Return the features of images [N, C, H, W] in [0, 1].

    Raises `BrokenError` when they are no matrix, are random, or depend on the other images.
    """

    @torch.no_grad()
    def features(some: Tensor, ambient: int = 0) -> Tensor:
        with rng.ambient(ambient, "check"):
            matrix: Tensor = call(part, network, some.clone())
        with contract(part):
            check_features(matrix, len(some))
        return matrix

    first = features(images)  # [N, F]
    if not alike(first, features(images, 1)):
        raise BrokenError(part, "the same images give other features the second time")
    if not alike(first[:2], features(images[:2])):
        raise BrokenError(part, "the features of an image depend on the others in its batch")
    return first


def _require(part: Metric, state: object, *names: str) -> None:
    for name in names:
        if not callable(getattr(state, name, None)):
            raise BrokenError(part, f"its build() gives a {type(state).__name__} without {name}()")
