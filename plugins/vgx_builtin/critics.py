"""Networks that judge latents: alone, or beside their images.

Letters: B images, C channels, H x W pixels, Z the latent shape, F features, h x w a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.modules import SLOPE


def linear_stages(inputs: int, widths: Sequence[int]) -> list[nn.Module]:
    """Return linear layers, each followed by LeakyReLU."""
    pairs = zip((inputs, *widths), widths, strict=False)
    return [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(SLOPE)) for a, b in pairs]


class LatentDiscriminator(nn.Module):
    """Linear stages whose outputs are the features, and a logit of the last."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(linear_stages(inputs, widths))
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, z: Tensor) -> vgx.Score:
        """Latents [B, *Z] -> logits [B, 1], every stage's output [B, F]."""
        x, features = z.flatten(1), list[Tensor]()
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return vgx.Score(self.head(x), tuple(features))


class PairDiscriminator(nn.Module):
    """A trunk for images and one for latents, and a network that judges the outputs of both."""

    def __init__(self, images: Sequence[nn.Module], latents: nn.Module, joint: nn.Module) -> None:
        super().__init__()
        self.images, self.latents, self.joint = nn.ModuleList(images), latents, joint

    def forward(self, images: Tensor, z: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1], latents [B, *Z] -> logits [B, 1], maps [B, F, h, w]."""
        x, features = images * 2 - 1, list[Tensor]()
        for stage in self.images:
            x = stage(x)
            features.append(x)
        both = torch.cat([x.flatten(1), self.latents(z.flatten(1))], 1)  # [B, F]
        return vgx.Score(self.joint(both), tuple(features))


class DensityRatioTerm(nn.Module):
    """The terms of `density-ratio-tc`, with its critic."""

    def __init__(self, critic: nn.Module, scale: float) -> None:
        super().__init__()
        self.critic, self.scale = critic, scale

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign: the estimate of the total correlation."""
        return self.scale * self._logits(_latents(step)).mean()

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar > 0; ln 2 when the critic cannot tell the two apart."""
        z = _latents(step).detach()  # [B, F]
        draws = torch.empty_like(z).uniform_(generator=step.rng("density-ratio-tc"))
        permuted = z.gather(0, draws.argsort(0))  # [B, F]
        own, other = self._logits(z), self._logits(permuted)
        softplus = nn.functional.softplus
        return 0.5 * (softplus(-own).mean() + softplus(other).mean())

    def _logits(self, z: Tensor) -> Tensor:
        """[B, 1]  High where latents look as they come, low where they look permuted."""
        logits: Tensor = self.critic(z).logits
        return logits


def _latents(step: vgx.Step) -> Tensor:
    """[B, F]  The latents of a minibatch of images."""
    step.posterior  # noqa: B018 - raises for a GAN, whose latents are the prior's
    if len(step.z) < 2:
        raise vgx.RecipeError("density-ratio-tc needs a minibatch of at least two images")
    return step.z.flatten(1)
