"""How many bits a model needs for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import Tensor

BERNOULLI = {"bce", "iwae"}  # losses to which each pixel value is a probability


class BitsPerDim(vgx.Metric, type="bits-per-dim"):
    """Bits for each pixel value of an image, by bounds of the model's likelihood; less is better.

    With z_k ~ q(z|x) and w_k = p(x|z_k) p(z_k) / q(z_k|x) and D pixel values: bits_per_dim is
    -mean_k(log2 w_k) / D, the evidence lower bound (Kingma and Welling 2014), and iwae_bits_per_dim
    is -log2(mean_k w_k) / D, the importance-weighted bound (Burda et al. 2016, eq. 8), which is
    nearer to the likelihood the more samples there are. p(z) is N(0, I), or the mixture of the loss
    `vamp-prior`. The posterior must be a Gaussian. m is the sigmoid of the decoder's logits.
    """

    pairs: ClassVar[bool] = True
    gives: ClassVar[dict[str, str]] = {
        "bits_per_dim": "bits for each pixel value, by the evidence lower bound",
        "iwae_bits_per_dim": "the same by the importance-weighted bound, which is tighter",
    }

    samples: PositiveInt = 16
    """Samples of the posterior of each image."""
    likelihood: Literal["auto", "bernoulli", "logistic", "gaussian"] = "auto"
    """p(x|z) of a pixel value: `bernoulli`, x log m + (1 - x) log(1 - m), which is a probability of
    black and white only; `logistic`, a logistic distribution about m, cut into the 256 values of a
    byte (Salimans et al. 2017, eq. 2); `gaussian`, the density of N(m, scale^2) times 1/255;
    `auto`, `bernoulli` with the loss `bce` or `iwae`, else `logistic`."""
    scale: PositiveFloat = 0.05
    """The scale of `logistic` and `gaussian`, in pixel values of [0, 1]."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.bounds import Bounds

        return Bounds(self.samples, image.pixel_values, self.log_likelihood, self.chosen)

    def chosen(self, recipe: vgx.Recipe) -> str:
        """Return the likelihood for a recipe."""
        if self.likelihood != "auto":
            return self.likelihood
        return "bernoulli" if BERNOULLI & {loss.type for loss in recipe.losses} else "logistic"

    def log_likelihood(self, kind: str, x: Tensor, logits: Tensor) -> Tensor:
        """[B]  log p(x|z) in nats of images x [B, C, H, W] in [0, 1], in float64."""
        import math

        from torch.nn import functional as F

        x, logits = x.double(), logits.double()
        if kind == "bernoulli":
            return (
                -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
            )
        away = (x - logits.sigmoid()) / self.scale  # [B, C, H, W]
        if kind == "gaussian":
            constant = math.log(2 * math.pi) / 2 + math.log(self.scale * 255)
            return (-away.square() / 2 - constant).flatten(1).sum(1)
        half = 1 / (2 * 255 * self.scale)  # of a byte's width
        above, below = away + half, away - half
        # log(sigmoid(above) - sigmoid(below)), which does not cancel far from the mean.
        inside = F.logsigmoid(above) + F.logsigmoid(-below) + math.log(-math.expm1(-2 * half))
        least = F.logsigmoid(above).where(x <= 0.5 / 255, inside)
        return F.logsigmoid(-below).where(x >= 1 - 0.5 / 255, least).flatten(1).sum(1)
