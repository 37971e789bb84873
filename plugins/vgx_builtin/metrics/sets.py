"""Generated images compared with real ones as two sets of features, of any sizes.

Letters: N real and M generated images, F features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Generator, Tensor


class FeatureMetric(vgx.Metric):
    """The base of metrics that compare the features of two sets of images."""

    features: vgx.Features = RandomConv()
    """The network."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import GatheredFeatures

        return GatheredFeatures(self.features.build(image), self.compare)

    @abstractmethod
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why fewer than two images of a side cannot be compared."""
        del image
        if min(real, generated) >= 2:
            return ""
        sides = f"{real:,} real and {generated:,} generated"
        return f"it needs two images of each side; here are {sides}"


class Frechet(FeatureMetric):
    """The base of the Frechet distances."""

    wants: ClassVar[int] = 2048  # the features of Inception; of fewer images S_r has no full rank

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        return {self.type: frechet_distance(real, fake)}


class Kernel(FeatureMetric):
    """The base of the kernel distances."""

    subsets: PositiveInt = 100
    """Number of subsets."""
    size: Annotated[int, Field(ge=2)] = 1000
    """Real images, and generated ones, in a subset; all of them where there are fewer."""
    seed: NonNegativeInt = 0
    """Chooses the subsets."""

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        return {self.type: kernel_distance(real, fake, self.subsets, self.size, self.seed)}


class FrechetDistance(Frechet, type="frechet-distance"):
    """Frechet distance of two Gaussians fitted to the features of a network.

    |m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)), with means m and covariances S (Heusel et al.
    2017, eq. 6). In Inception's features it is the `fid`; values in other features compare only
    with each other. It is biased: fewer images give a larger distance, so compare only values of
    equally many images.
    """


class KernelDistance(Kernel, type="kernel-distance"):
    """Kernel distance of the features of a network: the squared MMD with a cubic kernel.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(x, y) = (x.y / F + 1)^3, without pairs of
    an image with itself (Binkowski et al. 2018): unbiased, so it may be slightly below 0, and does
    not depend on the number of images. Mean over random subsets. In Inception's features it is the
    `kid`; values in other features compare only with each other.
    """


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Return the Frechet distance of Gaussians fitted to features [N, F] and [M, F].

    The trace of (S_r S_g)^(1/2) is the sum of the singular values of A B^T, where A^T A and B^T B
    are the two covariances. So no square root of a matrix is needed, and there may be fewer images
    than features.
    """
    import torch

    means, roots, traces = [], [], []
    for features in (real.double(), fake.double()):
        means.append(features.mean(0))  # [F]
        centred = (features - means[-1]) / (len(features) - 1) ** 0.5  # [N, F]
        traces.append(centred.square().sum())
        roots.append(torch.linalg.qr(centred, mode="r").R)  # [min(N, F), F]
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + traces[0] + traces[1] - 2 * shared
    return float(distance.item())


def kernel_distance(real: Tensor, fake: Tensor, subsets: int, size: int, seed: int) -> float:
    """Return the mean squared MMD of random subsets of features [N, F] and [M, F]."""
    import torch
    from torchmetrics.image.kid import poly_mmd

    size = min(size, len(real), len(fake))
    generator = torch.Generator().manual_seed(seed)
    # A subset of all images is always the same.
    count = 1 if size == len(real) == len(fake) else subsets
    values = [
        poly_mmd(_subset(real, size, generator), _subset(fake, size, generator))
        for _ in range(count)
    ]
    return float(torch.stack(values).mean().item())


def _subset(features: Tensor, size: int, generator: Generator) -> Tensor:
    """[size, F]  Rows of features [N, F], drawn without replacement, in float64."""
    import torch

    chosen = torch.randperm(len(features), generator=generator)[:size]
    return features[chosen.to(features.device)].double()
