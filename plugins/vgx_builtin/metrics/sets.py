"""Generated images compared with real ones as two sets of features, of any sizes.

Letters: N real and M generated images, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Generator, Tensor

ROWS = 1024  # of a matrix of distances, computed at once


class Fid(vgx.Metric, type="fid"):
    """Frechet distance of two Gaussians fitted to the features (Heusel et al. 2017, eq. 6).

    |m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)), with means m and covariances S. With
    Inception's features it is the Frechet Inception Distance. It is biased: fewer images give a
    larger distance, so compare only values of equally many images. torchmetrics computes it.
    """

    wants: ClassVar[int] = 2048  # Inception's features; with fewer images S_r has no full rank

    features: vgx.Features = RandomConv()
    """The network."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        return _state(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        from torchmetrics.image.fid import FrechetInceptionDistance

        from vgx_builtin.metrics.states import PassThrough

        if min(len(real), len(fake)) < 2:
            raise vgx.RecipeError("metric fid: it needs two real and two generated images")
        distance = FrechetInceptionDistance(PassThrough(real.shape[1])).to(real.device)
        distance.update(real.double(), real=True)
        distance.update(fake.double(), real=False)
        return {"fid": distance.compute().item()}


class Kid(vgx.Metric, type="kid"):
    """Kernel distance of the features: the squared MMD with a cubic kernel (Binkowski et al. 2018).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(x, y) = (x.y / F + 1)^3, without pairs of a
    image with itself: unbiased, so it may be slightly below 0, and does not depend on the number of
    images. Mean over random subsets. torchmetrics computes it.
    """

    features: vgx.Features = RandomConv()
    """The network."""
    subsets: PositiveInt = 100
    """Number of subsets."""
    size: Annotated[int, Field(ge=2)] = 1000
    """Real images, and generated ones, in a subset; all of them where there are fewer."""
    seed: NonNegativeInt = 0
    """Chooses the subsets."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        return _state(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch
        from torchmetrics.image.kid import poly_mmd

        size = min(self.size, len(real), len(fake))
        if size < 2:
            raise vgx.RecipeError("metric kid: it needs two real and two generated images")
        generator = torch.Generator().manual_seed(self.seed)
        values = []
        # A subset of all images is always the same.
        for _ in range(1 if size == len(real) == len(fake) else self.subsets):
            some_real = self._subset(real, size, generator)
            some_fake = self._subset(fake, size, generator)
            values.append(poly_mmd(some_real, some_fake))
        return {"kid": torch.stack(values).mean().item()}

    def _subset(self, features: Tensor, size: int, generator: Generator) -> Tensor:
        """[size, F]  Rows of features [N, F], drawn without replacement, in float64."""
        import torch

        chosen = torch.randperm(len(features), generator=generator)[:size]
        return features[chosen.to(features.device)].double()


class Prdc(vgx.Metric, type="prdc"):
    """Precision, recall, density and coverage: how realistic and how diverse generated images are.

    Each image has a ball that reaches to the k-th neighbour in its own set. `precision` is the
    share of generated images in some real ball, `recall` the share of real ones in some generated
    ball (Kynkaanniemi et al. 2019, eq. 2); `density` counts the real balls that a generated image
    is in, over k, and may exceed 1; `coverage` is the share of real balls with a generated image in
    them (Naeem et al. 2020, eq. 3 and 4).
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gives: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")

    features: vgx.Features = RandomConv()
    """The network."""
    k: PositiveInt = 5
    """The neighbour that a ball reaches to; both sets need more images than that."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        return _state(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch

        if min(len(real), len(fake)) <= self.k:
            message = f"{len(real):,} real and {len(fake):,} generated images"
            raise vgx.RecipeError(f"metric prdc: k: {self.k} is too many for {message}")
        real, fake = real.double(), fake.double()
        of_real, of_fake = self._radii(real), self._radii(fake)  # [N], [M]
        inside = real.new_zeros(len(fake))  # how many real balls each generated image is in
        recalled, covered = [], []
        for start in range(0, len(real), ROWS):
            distances = torch.cdist(real[start : start + ROWS], fake)  # [ROWS, M]
            within = distances < of_real[start : start + ROWS, None]
            inside += within.sum(0)
            covered.append(within.any(1))
            recalled.append((distances < of_fake).any(1))
        return {
            "precision": (inside > 0).double().mean().item(),
            "recall": torch.cat(recalled).double().mean().item(),
            "density": (inside.mean() / self.k).item(),
            "coverage": torch.cat(covered).double().mean().item(),
        }

    def _radii(self, features: Tensor) -> Tensor:
        """[N]  The distance of each of features [N, F] to its k-th neighbour, without itself."""
        import torch

        return torch.cat([
            torch.cdist(some, features).topk(self.k + 1, largest=False).values[:, -1]
            for some in torch.split(features, ROWS)
        ])  # fmt: skip


def _state(metric: Any, image: vgx.ImageSpec) -> vgx.MetricState:
    from vgx_builtin.metrics.states import GatheredFeatures

    return GatheredFeatures(metric.features.build(image), metric.compare)
