"""The networks of `ladder`: two levels of latents, the upper one flat and the lower one spatial.

Letters: B images, C channels, H x W pixels, D numbers of the upper level, c x h x w those of the
lower one, Z = D + c*h*w, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.modules import at_least_float32, glorot, normalisation
from vgx_builtin.residual import ResidualBlock

MOST_LOGVAR = 5.0  # of |logvar| of the lower level, as in the program of NVAE's authors


class LadderEncoder(nn.Module):
    """What rises from the images: the posterior of the upper level, and means for the lower one."""

    def __init__(
        self, widths: Sequence[int], lower: int, top: int, levels: vgx.LatentSpec, channels: int
    ) -> None:
        super().__init__()
        self.top, self.levels = top, levels.shape
        before, *_ = widths
        stages: list[nn.Module] = [nn.Conv2d(channels, before, 3, padding=1)]
        for width in widths:
            stages.append(ResidualBlock(before, width, "halve", "group"))
            before = width
        c, h, w = self.levels
        self.begin = nn.Sequential(*stages[: lower + 1])
        self.end = nn.Sequential(
            *stages[lower + 1 :], *normalisation("group", before), nn.ReLU(), nn.Flatten()
        )
        features, sides = widths[lower - 1], (h * w) // 4 ** (len(widths) - lower)
        self.below = nn.Sequential(
            *normalisation("group", features), nn.ReLU(), nn.Conv2d(features, 2 * c, 3, padding=1)
        )
        self.above = nn.Linear(before * sides, 2 * top)

    def forward(self, images: Tensor, decoder: nn.Module) -> LadderPosterior:
        """Images [B, C, H, W] in [0, 1] and the decoder -> a posterior over [B, Z]."""
        if not isinstance(decoder, LadderDecoder) or (decoder.top, decoder.levels) != (
            self.top,
            self.levels,
        ):
            message = "its decoder must be `ladder` with the same `top` and `lower`"
            raise vgx.RecipeError(f"encoder ladder: {message}")
        features = self.begin(images)  # [B, F, h, w]
        mu, logvar = at_least_float32(self.below(features)).chunk(2, 1)  # [B, c, h, w]
        top_mu, top_logvar = at_least_float32(self.above(self.end(features))).chunk(2, 1)  # [B, D]
        lower = partial(_merged, decoder, vgx.Gaussian(mu, bounded(logvar)))
        return LadderPosterior(vgx.Gaussian(top_mu, top_logvar), lower)


class LadderDecoder(nn.Module):
    """What descends to the images: the prior of the lower level given the upper one, and both."""

    def __init__(
        self, widths: Sequence[int], lower: int, top: int, levels: vgx.LatentSpec, channels: int
    ) -> None:
        super().__init__()
        self.top, self.levels = top, levels.shape
        c, h, w = self.levels
        coarse = len(widths) - lower
        sides = h // 2**coarse, w // 2**coarse
        blocks = [
            ResidualBlock(width, after, "double", "group")
            for width, after in zip(widths, (*widths[1:], widths[-1]), strict=True)
        ]
        self.begin = nn.Sequential(
            glorot(nn.Linear(top, widths[0] * math.prod(sides))),
            nn.Unflatten(1, (widths[0], *sides)),
            *blocks[:coarse],
        )
        features, last = widths[coarse], widths[-1]
        conv = nn.Conv2d(features, 2 * c, 3, padding=1)
        for weight in conv.parameters():  # the prior starts as N(0, I), whatever the upper level
            nn.init.zeros_(weight)
        self.prior = nn.Sequential(*normalisation("group", features), nn.ReLU(), conv)
        self.join = nn.Conv2d(features + c, features, 3, padding=1)
        self.end = nn.Sequential(
            *blocks[coarse:],
            *normalisation("group", last),
            nn.ReLU(),
            glorot(nn.Conv2d(last, channels, 3, padding=1)),
        )

    def descend(self, top: Tensor) -> tuple[Tensor, vgx.Gaussian]:
        """The upper level [B, D] -> features [B, F, h, w], and p(z1 | z2) over [B, c, h, w]."""
        features = self.begin(top)  # [B, F, h, w]
        mu, logvar = at_least_float32(self.prior(features)).chunk(2, 1)  # [B, c, h, w]
        return features, vgx.Gaussian(mu, bounded(logvar))

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, Z] -> logits [B, C, H, W]."""
        top, noise = z[:, : self.top], z[:, self.top :]
        features, prior = self.descend(top)
        lower = prior.mu + (prior.logvar / 2).exp() * noise.view(-1, *self.levels)
        joined = torch.cat([features, lower.to(features)], 1)  # [B, F + c, h, w]
        logits: Tensor = self.end(self.join(joined))
        return logits


class LadderPosterior:
    """q(z2 | x) and q(e1 | x, z2), where e1 is the lower level relative to its prior.

    z1 = mu_p(z2) + sigma_p(z2) e1, so e1 is N(0, I) under the prior, and the KL of q(e1 | x, z2)
    from N(0, I) is that of q(z1 | x, z2) from p(z1 | z2).
    """

    def __init__(self, top: vgx.Gaussian, lower: Callable[[Tensor], vgx.Gaussian]) -> None:
        """Take q(z2 | x), and the function from z2 to q(e1 | x, z2)."""
        self.top, self.lower = top, lower
        self._drawn: vgx.Gaussian | None = None  # q(e1 | x, z2) of the last sample

    @property
    def mean(self) -> Tensor:
        """[B, Z]  The mean of z2, and the mean of e1 given that."""
        return torch.cat([self.top.mu, self.lower(self.top.mu).mu], 1)

    def sample(self, generator: Generator) -> Tensor:
        """[B, Z]  A sample of z2, then one of e1 given this z2."""
        top = self.top.sample(generator)  # [B, D]
        self._drawn = self.lower(top)
        return torch.cat([top, self._drawn.sample(generator)], 1)

    def kl(self) -> Tensor:
        """[B, Z]  The KL of z2, and of e1 given the z2 of the last sample; first, of the mean."""
        drawn = self.lower(self.top.mu) if self._drawn is None else self._drawn
        return torch.cat([self.top.kl(), drawn.kl()], 1)


def _merged(decoder: LadderDecoder, own: vgx.Gaussian, top: Tensor) -> vgx.Gaussian:
    """Return q(e1 | x, z2) over [B, c*h*w]."""
    _, prior = decoder.descend(top)
    return relative(own, prior)


def relative(own: vgx.Gaussian, prior: vgx.Gaussian) -> vgx.Gaussian:
    """Return the product of two Gaussians over [B, c, h, w], relative to the second: [B, c*h*w].

    The product has the precision 1/s^2 + 1/s_p^2 and the mean (mu/s^2 + mu_p/s_p^2) over that; it
    is computed as z1 = mu_p + s_p e1.
    """
    gap = prior.logvar - own.logvar  # log s_p^2 / s^2
    mu = (own.mu - prior.mu) * (-prior.logvar / 2).exp() * gap.sigmoid()
    return vgx.Gaussian(mu.flatten(1), F.logsigmoid(-gap).flatten(1))


def bounded(logvar: Tensor) -> Tensor:
    """Return log variances within -5 and 5, by a tanh."""
    return MOST_LOGVAR * (logvar / MOST_LOGVAR).tanh()
