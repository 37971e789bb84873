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
    ball (Kynkaanniemi et al. 2019, eq. 2, with k = 3); `density` counts the real balls that a
    generated image is in, over k, and may exceed 1; `coverage` is the share of real balls with a
    generated image in them (Naeem et al. 2020, eq. 3 and 4, with k = 5). Kynkaanniemi et al. have
    50,000 images of each side and the features of VGG-16. A ball is without its border, as in the
    program of Naeem et al., so the ball of an image that is there more than k times is empty.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gives: ClassVar[dict[str, str]] = {
        "precision": "Share of generated images that are near a real one",
        "recall": "Share of real images that are near a generated one",
        "density": "Number of real images that a generated one is near to, over k; may exceed 1",
        "coverage": "Share of real images that have a generated one nearby",
    }

    k: PositiveInt = 5
    """The neighbour that a ball of `density` and `coverage` reaches to; both sets need more images
    than that."""
    k_precision: PositiveInt = 3
    """The same for `precision` and `recall`."""

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why k is too many for the images."""
        del image
        for name, k in (("k", self.k), ("k_precision", self.k_precision)):
            if min(real, generated) <= k:
                return (
                    f"{name}: {k} is too many for {real:,} real and {generated:,} generated images"
                )
        return ""

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] with [M, F], in float64."""
        import torch

        real, fake = real.double(), fake.double()
        near, far = self._radii(real)  # [N], to the neighbours k_precision and k
        of_fake, _ = self._radii(fake)  # [M]
        precise, recalled, dense, covered = [], [], [], []
        for start in range(0, len(real), ROWS):
            rows = slice(start, start + ROWS)
            distances = torch.cdist(real[rows], fake)  # [ROWS, M]
            precise.append((distances < near[rows, None]).any(0))
            recalled.append((distances < of_fake).any(1))
            within = distances < far[rows, None]
            dense.append(within.sum(0))
            covered.append(within.any(1))
        return {
            "precision": torch.stack(precise).any(0).double().mean().item(),
            "recall": torch.cat(recalled).double().mean().item(),
            "density": torch.stack(dense).sum(0).double().mean().item() / self.k,
            "coverage": torch.cat(covered).double().mean().item(),
        }

    def _radii(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[N] and [N]  Return the distance of each of features [N, F] to two neighbours.

        They are the neighbours `k_precision` and `k`, without the image itself.
        """
        import torch

        most = max(self.k, self.k_precision)
        distances = torch.cat([
            torch.cdist(some, features).topk(most + 1, largest=False).values
            for some in torch.split(features, ROWS)
        ])  # fmt: skip
        return distances[:, self.k_precision], distances[:, self.k]
