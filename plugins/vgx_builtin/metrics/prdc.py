"""Precision, recall, density and coverage of generated images.

Letters: N real and M generated images, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

import vgx
from vgx_builtin.metrics.sets import FeatureMetric

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1024  # of a matrix of distances, computed at once


class Prdc(FeatureMetric, type="prdc"):
    """Precision, recall, density and coverage: how realistic and how diverse generated images are.

    Each image has a ball that reaches to the k-th neighbour in its own set. `precision` is the
    share of generated images in some real ball, `recall` the share of real ones in some generated
    ball (Kynkaanniemi et al. 2019, eq. 2); `density` counts the real balls that a generated image
    is in, over k, and may exceed 1; `coverage` is the share of real balls with a generated image in
    them (Naeem et al. 2020, eq. 3 and 4). k = 5 is that of Naeem et al.; Kynkaanniemi et al. have
    k = 3, 50,000 images of each side and the features of VGG-16.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gives: ClassVar[dict[str, str]] = {
        "precision": "Share of generated images that are near a real one",
        "recall": "Share of real images that are near a generated one",
        "density": "Number of real images that a generated one is near to, over k; may exceed 1",
        "coverage": "Share of real images that have a generated one nearby",
    }

    k: PositiveInt = 5
    """The neighbour that a ball reaches to; both sets need more images than that."""

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why k is too many for the images."""
        del image
        if min(real, generated) > self.k:
            return ""
        return f"k: {self.k} is too many for {real:,} real and {generated:,} generated images"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch

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
