"""The inception score of generated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt, field_validator

import vgx
from vgx_builtin.features.inception import Inception
from vgx_builtin.metrics.inception import only_inception
from vgx_builtin.metrics.sets import FeatureMetric

if TYPE_CHECKING:
    from torch import Tensor


class InceptionScore(FeatureMetric, type="inception-score"):
    """Inception score of generated images: how sure and how varied their classes are; 1 to 1008.

    exp(E KL(p(y|x) || p(y))) with the classes y of Inception v3 of 2015, its logits without a bias
    as in the authors' program (Salimans et al. 2016, section 4). Images are dealt to `splits` sets
    of equal size in turn, and the value is the mean over sets; published values have 10 of 5,000
    images. Real images are not looked at. It says little about images unlike those of ImageNet.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    on_request: ClassVar[bool] = True
    wants: ClassVar[int] = 50_000

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""
    splits: PositiveInt = 10
    """Sets of images that the value is the mean of."""

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return only_inception(features, "inception-score", "")

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why there are too few images for the splits."""
        del image, real
        if generated >= 2 * self.splits:
            return ""
        return f"splits: {self.splits} are too many for {generated:,} generated images"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compute the score of features [M, 2048], in float64."""
        del real
        assert isinstance(self.features, Inception)
        return {self.type: inception_score(fake, self.features.classifier(), self.splits)}


def inception_score(features: Tensor, classifier: Tensor, splits: int) -> float:
    """Return the mean score of `splits` sets of features [M, F], with a classifier [classes, F]."""
    import torch

    logits = features.double() @ classifier.to(features.device).double().T  # [M, classes]
    scores = []
    for split in range(splits):
        own = logits[split::splits].log_softmax(1)  # log p(y|x)
        marginal = own.logsumexp(0) - torch.tensor(len(own)).double().log()  # log p(y)
        scores.append((own.exp() * (own - marginal)).sum(1).mean().exp())
    return float(torch.stack(scores).mean().item())
