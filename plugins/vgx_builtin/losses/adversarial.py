"""Adversarial losses: terms of both players, computed from the discriminator's logits.

High logits mean real. Means are over the batch and over patches. "Real" and "fake" are what the
discriminator judges: images, latents, or pairs of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class BceAdversarial(vgx.Loss, type="bce-adversarial"):
    """Binary cross-entropy for both players (Goodfellow et al. 2014), non-saturating.

    Generator: BCE(D(fake), 1) = mean softplus(-D(fake)).
    Discriminator: BCE(D(real), 1) + BCE(D(fake), 0)
                 = mean softplus(-D(real)) + mean softplus(D(fake)).
    """

    both_sides: bool = False
    """Add BCE(D(real), 0) to the generator's term. For a discriminator of pairs, whose real side
    holds the encoder's latents (BiGAN, Donahue et al. 2017)."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; ln 2 a side when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        value = F.softplus(-step.fake_score.logits).mean()
        return value + F.softplus(step.real_score.logits).mean() if self.both_sides else value

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; 2 ln 2 when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        real, fake = step.real_score.logits, step.fake_score.logits
        return F.softplus(-real).mean() + F.softplus(fake).mean()


class Hinge(vgx.Loss, type="hinge"):
    """The hinge loss (Lim and Ye 2017; Miyato et al. 2018), on raw logits.

    Generator: -mean D(fake).
    Discriminator: mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)).
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign."""
        return -step.fake_score.logits.mean()

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when real is above 1 and fake below -1."""
        real, fake = step.real_score.logits, step.fake_score.logits
        return (1 - real).relu().mean() + (1 + fake).relu().mean()


class Minimax(vgx.Loss, type="minimax"):
    """The minimax loss (Goodfellow et al. 2014, eq. 1): one value, with opposite signs.

    Generator: mean log(1 - sigmoid(D(fake))) = -mean softplus(D(fake)).
    Discriminator: mean softplus(-D(real)) + mean softplus(D(fake)), as in bce-adversarial.

    The generator's gradient vanishes where the discriminator is sure that a fake is one.
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar < 0; -ln 2 when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        return -F.softplus(step.fake_score.logits).mean()

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; 2 ln 2 when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        real, fake = step.real_score.logits, step.fake_score.logits
        return F.softplus(-real).mean() + F.softplus(fake).mean()


class LeastSquares(vgx.Loss, type="least-squares"):
    """Squared distances of raw logits from 1 for real and 0 for fake (Mao et al. 2017, eq. 9).

    Generator: 1/2 mean (D(fake) - 1)^2.
    Discriminator: 1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2.
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when every fake scores 1."""
        fake = step.fake_score.logits
        return 0.5 * ((fake - 1) ** 2).mean()

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; at least 1/4 when the discriminator cannot tell real from fake."""
        real, fake = step.real_score.logits, step.fake_score.logits
        return 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean()


class Wasserstein(vgx.Loss, type="wasserstein"):
    """The difference of mean logits, an estimate of Wasserstein's distance (Arjovsky et al. 2017).

    Generator: -mean D(fake).
    Discriminator: mean D(fake) - mean D(real).

    It is bounded, and an estimate, only for a discriminator with a bounded slope: use it beside
    `gradient-penalty`, or with spectral normalisation.
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign."""
        return -step.fake_score.logits.mean()

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign; minus the estimate of the distance."""
        real, fake = step.real_score.logits, step.fake_score.logits
        return fake.mean() - real.mean()


class Relativistic(vgx.Loss, type="relativistic"):
    """How much higher real images score than fakes (Jolicoeur-Martineau 2018).

    Generator: mean softplus(d). Discriminator: mean softplus(-d).

    `one` is RpGAN, which R3GAN builds on (Huang et al. 2024): d = D(real) - D(fake).
    `average` is RaGAN, with a sum of two such terms: d = D(real) - mean D(fake) in one, and
    d = mean D(real) - D(fake) in the other.
    """

    pairing: Literal["one", "average"] = "one"
    """What a logit is compared with. `one`: one fake with one real image, at the same place of the
    grid; `average`: each with the mean of the other kind."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; ln 2 a term when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        first, *rest = [F.softplus(d).mean() for d in self._differences(step)]
        return sum(rest, first)

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; ln 2 a term when the discriminator cannot tell real from fake."""
        from torch.nn import functional as F

        first, *rest = [F.softplus(-d).mean() for d in self._differences(step)]
        return sum(rest, first)

    def _differences(self, step: vgx.Step) -> list[Tensor]:
        """Return how much higher real scores than fake, which the discriminator increases."""
        import torch

        real, fake = step.real_score.logits, step.fake_score.logits
        if self.pairing == "average":
            means = vgx.mean_over_processes(torch.stack([real.mean(), fake.mean()]))
            return [real - means[1], means[0] - fake]
        # Reconstructions and decoded noise are both compared with the same real images.
        return [torch.cat([real] * (len(fake) // len(real))) - fake]
