"""The distances of two sets of images that are called after Inception, in its features alone."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator
from pydantic_core import PydanticCustomError

import vgx
from vgx_builtin.features.inception import Inception
from vgx_builtin.metrics.sets import Frechet, Kernel


class Fid(Frechet, type="fid"):
    """Frechet Inception Distance: the Frechet distance in Inception's features.

    Heusel et al. 2017, eq. 6. `frechet-distance` is the same in other features. It is biased: fewer
    images give a larger distance, so compare only values of equally many images.
    """

    on_request: ClassVar[bool] = True

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return only_inception(features, "fid", "frechet-distance")


class Kid(Kernel, type="kid"):
    """Kernel Inception Distance: the kernel distance in Inception's features.

    Binkowski et al. 2018. `kernel-distance` is the same in other features.
    """

    on_request: ClassVar[bool] = True

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return only_inception(features, "kid", "kernel-distance")


def only_inception(features: vgx.Features, name: str, instead: str) -> vgx.Features:
    """Return the features of `name`; an error for others says what to write instead."""
    if features.type != Inception.type:
        message = "{name} is in Inception's features alone"
        if instead:
            message += "; in others write 'type: {instead}'"
        raise PydanticCustomError("inception", message, {"name": name, "instead": instead})
    return features
