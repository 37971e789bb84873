"""Metrics and their features on a few random images.

Letters: N images, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import alike, call
from vgx.parts.base import BrokenError
from vgx.parts.kinds import Comparison, Features, Metric
from vgx.parts.values import ImageSpec
from vgx.recipe.model import value_names

IMAGES = 8


def try_metric(part: Metric, image: ImageSpec) -> None:
    """Compute a metric of random images as an evaluation will, twice.

    Raises `BrokenError` for a metric, or for features, that break their contract.
    """
    shape = (IMAGES, image.channels, image.size, image.size)
    generator = rng.generator(0, "check")
    real, fake = (torch.rand(shape, generator=generator) for _ in range(2))  # [N, C, H, W]
    if isinstance(part, Comparison) and not part.pairs:
        real, fake = (try_features(part.features, image, images) for images in (real, fake))

    def computed(ambient: int) -> dict[str, float]:
        with rng.ambient(ambient, "check"):
            if isinstance(part, Comparison) and not part.pairs:
                return _values(part, call(part, part.compare, real.clone(), fake.clone()))
            state: Any = call(part, part.build, image)
            images = real.clone(), fake.clone()
            _use(part, state, "update", *images)
            if not (torch.equal(images[0], real) and torch.equal(images[1], fake)):
                raise BrokenError(part, "its update() changes the images that it is given")
            return _values(part, _use(part, state, "compute"))

    if part.why_not(image, IMAGES, IMAGES):
        return  # it needs more images
    if computed(0) != computed(1):
        raise BrokenError(part, "the same images give other values: draw no random numbers")


def try_features(part: Features, image: ImageSpec, images: Tensor) -> Tensor:
    """[N, F]  Return the features of images [N, C, H, W] in [0, 1].

    Raises `BrokenError` when they are no matrix, are random, or depend on the other images.
    """
    network = call(part, part.build, image)
    if not isinstance(network, nn.Module):
        raise BrokenError(part, f"its build() gives a {type(network).__name__}, no nn.Module")

    @torch.no_grad()
    def features(some: Tensor, ambient: int = 0) -> Tensor:
        with rng.ambient(ambient, "check"):
            matrix = call(part, network, some.clone())
        if not isinstance(matrix, Tensor) or matrix.dim() != 2 or len(matrix) != len(some):
            shape = list(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
            raise BrokenError(part, f"its features are no matrix [N, F], but {shape}")
        if not matrix.isfinite().all():
            raise BrokenError(part, "its features are not all finite")
        return matrix

    first = features(images)  # [N, F]
    if not alike(first, features(images, 1)):
        raise BrokenError(part, "the same images give other features the second time")
    if not alike(first[:2], features(images[:2])):
        raise BrokenError(part, "the features of an image depend on the others in its batch")
    return first


def _use(part: Metric, state: Any, method: str, *images: Tensor) -> Any:
    function: Callable[..., Any] | None = getattr(state, method, None)
    if function is None:
        raise BrokenError(part, f"its build() gives a {type(state).__name__} without {method}()")
    return call(part, function, *images)


def _values(part: Metric, values: Any) -> dict[str, float]:
    """Return the values of a metric, when they are what the metric says."""
    if not isinstance(values, dict):
        raise BrokenError(part, f"it gives a {type(values).__name__}, no values by name")
    if {*values} != {*value_names(part)}:
        declared = ", ".join(value_names(part))
        raise BrokenError(part, f"it gives the values {[*values]}; declared are: {declared}")
    for name, value in values.items():
        if not isinstance(value, float) or not math.isfinite(value):
            raise BrokenError(part, f"its value {name} is {value!r}, no finite float")
    return values
