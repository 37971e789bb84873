"""Adversarial losses: what the two players make of the discriminator's logits.

High logits mean real. Means are over the batch and over patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class BceAdversarial(vgx.Loss, type="bce-adversarial"):
    """Binary cross-entropy for both players (Goodfellow et al. 2014), non-saturating.

    Generator: BCE(D(fake), 1) = mean softplus(-D(fake)).
    Discriminator: BCE(D(real), 1) + BCE(D(fake), 0)
                 = mean softplus(-D(real)) + mean softplus(D(fake)).
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; ln 2 when the discriminator can't tell."""
        from torch.nn import functional as F

        return F.softplus(-step.fake_score.logits).mean()  # type: ignore[union-attr]

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; 2 ln 2 when the discriminator can't tell."""
        from torch.nn import functional as F

        real, fake = step.real_score.logits, step.fake_score.logits  # type: ignore[union-attr]
        return F.softplus(-real).mean() + F.softplus(fake).mean()


class Hinge(vgx.Loss, type="hinge"):
    """The hinge loss (Lim and Ye 2017; Miyato et al. 2018), on raw logits.

    Generator: -mean D(fake).
    Discriminator: mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)).
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign."""
        return -step.fake_score.logits.mean()  # type: ignore[union-attr]

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when real is above 1 and fake below -1."""
        real, fake = step.real_score.logits, step.fake_score.logits  # type: ignore[union-attr]
        return (1 - real).relu().mean() + (1 + fake).relu().mean()
