"""The distances of two sets of images that are called after Inception, in its features alone.

Letters: N real and M generated images, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt, PositiveInt, field_validator
from pydantic_core import PydanticCustomError

import vgx
from vgx_builtin.features.inception import Inception
from vgx_builtin.metrics.sets import (
    Size,
    frechet_distance,
    gather_features,
    kernel_distance,
    too_few,
)

if TYPE_CHECKING:
    from torch import Tensor


class Fid(vgx.Metric, type="fid"):
    """Frechet Inception Distance: the Frechet distance in Inception's features.

    Heusel et al. 2017, eq. 6. `frechet-distance` is the same in other features. It is biased: fewer
    images give a larger distance, so compare only values of equally many images.
    """

    wants: ClassVar[int] = 2048  # the number of features; with fewer images S_r has no full rank
    on_request: ClassVar[bool] = True

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        return gather_features(self, image)

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why the images are too few."""
        del image
        return too_few(real, generated)

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return _inception(features, "fid", "frechet-distance")

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        return {self.type: frechet_distance(real, fake)}


class Kid(vgx.Metric, type="kid"):
    """Kernel Inception Distance: the kernel distance in Inception's features.

    Binkowski et al. 2018. `kernel-distance` is the same in other features.
    """

    on_request: ClassVar[bool] = True

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""
    subsets: PositiveInt = 100
    """Number of subsets."""
    size: Size = 1000
    """Real images, and generated ones, in a subset; all of them where there are fewer."""
    seed: NonNegativeInt = 0
    """Chooses the subsets."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        return gather_features(self, image)

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why the images are too few."""
        del image
        return too_few(real, generated)

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return _inception(features, "kid", "kernel-distance")

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        return {self.type: kernel_distance(real, fake, self.subsets, self.size, self.seed)}


def _inception(features: vgx.Features, name: str, instead: str) -> vgx.Features:
    """Return the features of `name`; an error for others says what to write instead."""
    if features.type != Inception.type:
        message = "{name} is in Inception's features alone; in others write 'type: {instead}'"
        raise PydanticCustomError("inception", message, {"name": name, "instead": instead})
    return features
