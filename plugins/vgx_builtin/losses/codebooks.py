"""Losses on the latents of encoders with a codebook.

Letters: B images, Z the latent shape, D levels, P places, F bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import Tensor

    from vgx_builtin.posteriors import Quantised

LEAST = 1e-6  # probability of a bit, so that its logarithm is finite


class Vq(vgx.Loss, type="vq"):
    """Move a codebook to the encoder's output, and keep that near it (van den Oord et al. 2017).

    Equation 3: mean (sg[e] - c)^2 + commitment * mean (e - sg[c])^2, with e the encoder's output, c
    the nearest vectors of the codebook and sg a stop of the gradient; means over the batch and the
    latents. The first term is left out where the vectors are moving averages. With several levels,
    the second is summed over them, and c is the sum of the vectors of the first 1, 2, ... levels
    (Lee et al. 2022, section 3.1).
    """

    commitment: NonNegativeFloat = 0.25
    """Beta in the paper: how strongly the encoder is kept near the codebook."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the encoder's outputs are vectors of the codebook."""
        from torch.nn import functional as F

        posterior = quantised(self.type, step, "learned", "averaged")
        encoded, codes = posterior.encoded, posterior.codes  # [B, *Z]
        if posterior.sums is not None:
            distances = (posterior.sums - encoded).square()  # [D, B, *Z]
            return self.commitment * distances.flatten(1).mean(1).sum()
        commitment = self.commitment * F.mse_loss(encoded, codes.detach())
        if posterior.book == "averaged":
            return commitment
        return F.mse_loss(codes, encoded.detach()) + commitment


class BitEntropy(vgx.Loss, type="bit-entropy"):
    """Make each bit of binary-spherical latents certain, and its two values equally frequent.

    mean_u sum_d H(p_d(u)) - diversity * sum_d H(mean_u p_d(u)), with p_d(u) the probability
    sigmoid(2 sharpness u_d / sqrt(F)) of bit d of a direction u of F bits, and H the entropy in
    nats (Zhao et al. 2024). The means are over all places of the minibatch. The first sum is the
    entropy of the soft code of one place; the second is that of all of them together if bits are
    independent, as the authors assume.
    """

    across_batch: ClassVar[bool] = True

    sharpness: PositiveFloat = 1.0
    """Tau in the paper: how fast a bit becomes certain with the distance from 0."""
    diversity: NonNegativeFloat = 1.0
    """Gamma in the paper: the weight of the second term."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign; the lower, the more of the codes are used."""
        from torch.nn.functional import softplus

        directions = quantised(self.type, step, "corners").encoded  # [B, *Z]
        bits = directions.shape[1]
        logits = 2 * self.sharpness / math.sqrt(bits) * directions.movedim(1, -1).flatten(0, -2)
        ones = logits.sigmoid()  # [B*P, F]
        # H(sigmoid(x)) without a logarithm of 0.
        certain = (softplus(logits) - logits * ones).sum(1).mean()
        often = ones.mean(0).clamp(LEAST, 1 - LEAST)  # [F]
        frequent = -(often * often.log() + (1 - often) * (1 - often).log()).sum()
        return certain - self.diversity * frequent


def quantised(loss: str, step: vgx.Step, *books: str) -> Quantised:
    """Return the posterior of an encoder with such a codebook; raise `RecipeError` for another."""
    from vgx_builtin.posteriors import Quantised

    posterior = step.posterior
    if isinstance(posterior, Quantised) and posterior.book in books:
        return posterior
    needed = "binary-spherical" if "corners" in books else "vector-quantised or residual-quantised"
    given = type(posterior).__name__
    if isinstance(posterior, Quantised):
        given = f"posterior whose codebook is {posterior.book}"
    raise vgx.RecipeError(f"{loss} needs the encoder {needed}; the encoder gives a {given}")
