"""Whether samples are nearer to training images than to held-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import vgx
from vgx_builtin.features.random_conv import RandomConv
from vgx_builtin.metrics.prdc import ROWS

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 9_999  # random choices of the held-out images


class Memorisation(vgx.Metric, type="memorisation"):
    """A test with a p-value: whether samples are nearer to training images than to held-out ones.

    Each sample is counted for the real image that is nearest to it. Which images were held out is
    an accident, so a model that copies nothing is as near to them as to the others: their part of
    the counts is that of any equally large random choice of the real images. `memorisation_p` is
    the share of such choices (the true one and 9,999 others) that have as small a part; below 0.01
    the samples are copies of training images, or near to such. `novelty` is the part over the
    expected one: about 1, and 0 for copies.

    The three sets are those of Meehan et al. 2020, whose test is another one: it compares the
    distances of samples to training images with those of held-out images, which blurred samples
    fail too. Here blurred samples pass, and the p-value holds for any number of samples.
    """

    held_out: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    gives: ClassVar[dict[str, str]] = {
        "memorisation_p": "p-value: below 0.01 samples are nearer to training than to held-out "
        "images",
        "novelty": "How often a held-out image is the nearest to a sample, over what is expected: "
        "1; of copies of training images 0",
    }

    features: vgx.Features = RandomConv()
    """The network."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state, which also takes held-out images."""
        from vgx_builtin.metrics.states import GatheredFeatures

        return GatheredFeatures(self.features.build(image), self.compare)

    def compare(self, real: Tensor, fake: Tensor, held_out: Tensor) -> dict[str, float]:
        """Compare features of training images [N, F], samples [M, F], held-out images [K, F]."""
        import torch

        pool = torch.cat([real, held_out]).double()  # [N + K, F]
        nearest = torch.cat([
            torch.cdist(some, pool).argmin(1) for some in torch.split(fake.double(), ROWS)
        ])  # fmt: skip
        counts = torch.bincount(nearest, minlength=len(pool))  # [N + K]
        return held_out_part(counts.cpu(), len(held_out))


def held_out_part(counts: Tensor, held_out: int) -> dict[str, float]:
    """Compare the counts of the last `held_out` images with those of random choices of as many."""
    import numpy as np

    counted = int(counts[-held_out:].sum())
    # The sum over a random choice depends on how many images of each count it holds alone.
    values, images = np.unique(counts.numpy(), return_counts=True)
    generator = np.random.default_rng(0)
    chosen = generator.multivariate_hypergeometric(
        images, held_out, size=DRAWS, method="marginals"
    )  # [draws, counts]
    as_few = int((chosen @ values <= counted).sum())
    expected = int(counts.sum()) * held_out / len(counts)
    return {"memorisation_p": (1 + as_few) / (1 + DRAWS), "novelty": counted / expected}
