"""Metrics and their features on a few random images.

Letters: N images, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import alike, call, contract
from vgx.parts.base import BrokenError
from vgx.parts.contract import check_features, check_values
from vgx.parts.kinds import Comparison, Features, Metric
from vgx.parts.values import ImageSpec
from vgx.recipe.model import value_names

IMAGES = 8


def try_metric(
    part: Metric, image: ImageSpec, network_of: Callable[[Features], nn.Module] | None = None
) -> int:
    """Compute a metric of random images twice, before any image of the run is drawn.

    `network_of` returns the network of its features; by default it is built. Returns how many
    features the metric compares, 0 for one that compares images. Raises `BrokenError` for a metric,
    or for features, that break their contract.
    """
    shape = (IMAGES, *image.shape)
    generator = rng.generator(0, "check")
    count = 3 if part.held_out else 2  # real and generated images, and held-out ones
    sets = [torch.rand(shape, generator=generator) for _ in range(count)]  # [N, C, H, W] each
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

    def computed(ambient: int) -> dict[str, float]:
        given = [each.clone() for each in sets]
        with rng.ambient(ambient, "check"):
            if in_features:
                values = call(part, in_features.compare, *given)
            else:
                state: Any = call(part, part.build, image)
                call(part, _method(part, state, "update"), *given)
                values = call(part, _method(part, state, "compute"))
        with contract(part):
            check_values(values, value_names(part))
        if not all(map(torch.equal, given, sets)):
            raise BrokenError(part, "it changes the images that it is given in place")
        return dict(values)

    if computed(0) != computed(1):
        raise BrokenError(part, "the same images give other numbers: draw no random ones")
    return width


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


def _method(part: Metric, state: object, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(state, name, None)
    if method is None:
        raise BrokenError(part, f"its build() gives a {type(state).__name__} without {name}()")
    return method
