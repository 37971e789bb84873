"""Generated pictures against real ones: two sets of features, however many there are of each.

Letters: N real and M generated pictures, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1024  # of a matrix of distances at once


class Fid(vgx.Metric, type="fid"):
    """Frechet distance of two Gaussians fitted to the features (Heusel et al. 2017, eq. 6).

    |m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)), with means m and covariances S. With
    Inception's features it is the Frechet Inception Distance. It is biased: fewer pictures give a
    larger distance, so compare only figures of as many. torchmetrics computes it.
    """

    wants: ClassVar[int] = 2048  # as many as Inception has features: below, S_r has no full rank

    features: vgx.Features = RandomConv()
    """The network."""

    def build(self, image: vgx.ImageSpec) -> vgx.Gauge:
        """Make a fresh measurement."""
        return _gathered(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        from torchmetrics.image.fid import FrechetInceptionDistance

        from vgx_builtin.metrics.gauges import AsGiven

        if min(len(real), len(fake)) < 2:
            raise vgx.RecipeError("metric fid: a covariance takes two pictures of each side")
        distance = FrechetInceptionDistance(AsGiven(real.shape[1])).to(real.device)
        distance.update(real.double(), real=True)
        distance.update(fake.double(), real=False)
        return {"fid": distance.compute().item()}


class Kid(vgx.Metric, type="kid"):
    """Kernel distance of the features: the squared MMD with a cubic kernel (Binkowski et al. 2018).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(x, y) = (x.y / F + 1)^3, without pairs of a
    picture with itself: unbiased, so it may be a little below 0, and does not depend on how many
    pictures there are. Mean over random subsets. torchmetrics computes it.
    """

    features: vgx.Features = RandomConv()
    """The network."""
    subsets: PositiveInt = 100
    """How many subsets are drawn."""
    size: Annotated[int, Field(ge=2)] = 1000
    """Pictures of each side in a subset; all of them where there are fewer."""
    seed: NonNegativeInt = 0
    """Chooses the subsets."""

    def build(self, image: vgx.ImageSpec) -> vgx.Gauge:
        """Make a fresh measurement."""
        return _gathered(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch
        from torchmetrics.image.kid import poly_mmd

        size = min(self.size, len(real), len(fake))
        if size < 2:
            raise vgx.RecipeError("metric kid: it takes two pictures of each side")
        chance = torch.Generator().manual_seed(self.seed)
        values = []
        # All pictures, whatever their order, are one and the same subset.
        for _ in range(1 if size == len(real) == len(fake) else self.subsets):
            chosen = [
                side[torch.randperm(len(side), generator=chance)[:size].to(side.device)].double()
                for side in (real, fake)
            ]  # [size, F]
            values.append(poly_mmd(chosen[0], chosen[1]))
        return {"kid": torch.stack(values).mean().item()}


class Prdc(vgx.Metric, type="prdc"):
    """Precision and recall, density and coverage: how true the generated pictures are, how various.

    Each picture's ball reaches to its k-th neighbour on its own side. `precision` is the share of
    generated pictures in some real ball, `recall` the share of real ones in some generated ball
    (Kynkaanniemi et al. 2019, eq. 2); `density` counts the real balls that a generated picture is
    in, over k, and may exceed 1; `coverage` is the share of real balls with a generated picture in
    them (Naeem et al. 2020, eq. 3 and 4).
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gives: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")

    features: vgx.Features = RandomConv()
    """The network."""
    k: PositiveInt = 5
    """Which neighbour a ball reaches to; both sides need more pictures than that."""

    def build(self, image: vgx.ImageSpec) -> vgx.Gauge:
        """Make a fresh measurement."""
        return _gathered(self, image)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch

        if min(len(real), len(fake)) <= self.k:
            message = f"{len(real):,} real and {len(fake):,} generated pictures"
            raise vgx.RecipeError(f"metric prdc: k: {self.k} is too many for {message}")
        real, fake = real.double(), fake.double()
        of_real, of_fake = self._reach(real), self._reach(fake)  # [N], [M]
        inside = real.new_zeros(len(fake))  # how many real balls each generated picture is in
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

    def _reach(self, features: Tensor) -> Tensor:
        """[N]  The distance of each of features [N, F] to its k-th neighbour, itself left out."""
        import torch

        return torch.cat([
            torch.cdist(some, features).topk(self.k + 1, largest=False).values[:, -1]
            for some in torch.split(features, ROWS)
        ])  # fmt: skip


def _gathered(metric: Any, image: vgx.ImageSpec) -> vgx.Gauge:
    from vgx_builtin.metrics.gauges import Gathered

    return Gathered(metric.features.build(image), metric.compare)
