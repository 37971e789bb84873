"""Modules that wrap another part's network.

Letters: B images, C channels, H x W pixels, Z the latent shape, P places, S scales, h x w the
patch grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.modules import at_least_float32
from vgx_builtin.posteriors import NoisyGaussian, NoisyPoint, Point

MOST_PLACES = 2**18  # of one scale in the logits of a multi-scale discriminator


def output_on_black(network: nn.Module, image: vgx.ImageSpec) -> Any:
    """Return the output of a new network for one black image; the network stays as it was."""
    network.eval()  # nothing is drawn, and no statistics move
    output = network(torch.zeros(1, *image.shape))
    network.train()
    return output


def mean_of(
    part: str, inner: vgx.Encoder, image: vgx.ImageSpec, latent: vgx.LatentSpec
) -> nn.Module:
    """Build the inner encoder of a part, and freeze what its posterior's mean does not depend on.

    The gradients of the weights show which these are, so this works for every encoder. Raises
    `RecipeError` for one that takes labels.
    """
    unconditional(f"encoder {part}", inner)
    if inner.type == "noisy":
        text = "inner: 'noisy' changes samples, and of inner the mean is taken; put noisy outside"
        raise vgx.RecipeError(f"encoder {part}: {text}")
    # A model may be loaded where gradients are off.
    with torch.inference_mode(mode=False), torch.enable_grad():
        encoder = inner.build(image, latent)
        weights = [weight for weight in encoder.parameters() if weight.requires_grad]
        if not weights:
            return encoder
        mean = output_on_black(encoder, image).mean.sum()
        gradients = torch.autograd.grad(mean, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
    return encoder


class PointEncoder(nn.Module):
    """An encoder that gives the mean of another one's posterior."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Point:
        """Images [B, C, H, W] -> a point in [B, *Z]."""
        return Point(self.inner(images).mean)


class NoisyEncoder(nn.Module):
    """An encoder whose posterior's samples have noise in addition."""

    def __init__(self, inner: nn.Module, sigma: float) -> None:
        super().__init__()
        self.inner, self.sigma = inner, sigma

    def forward(self, images: Tensor) -> NoisyGaussian | NoisyPoint:
        """Images [B, C, H, W] -> the inner posterior [B, *Z] with noisy samples."""
        posterior = self.inner(images)
        if isinstance(posterior, vgx.Gaussian):
            return NoisyGaussian(posterior.mu, posterior.logvar, self.sigma)
        if isinstance(posterior, Point):
            return NoisyPoint(posterior.mean, self.sigma)
        given = f"inner gives a {type(posterior).__name__}"
        raise vgx.RecipeError(f"encoder noisy: {given}; it takes a Gaussian, or deterministic")


class WithCategories(nn.Module):
    """A decoder whose first channels are blocks that become one-hot vectors."""

    def __init__(self, inner: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.sizes = inner, sizes

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, *Z] -> logits [B, C, H, W]."""
        blocks = torch.split(z, [*self.sizes, z.shape[1] - sum(self.sizes)], 1)  # [B, K, ..] each
        logits: Tensor = self.inner(torch.cat([*map(one_hot, blocks[:-1]), blocks[-1]], 1))
        return logits


def one_hot(block: Tensor) -> Tensor:
    """[B, K, ...]  One-hot vectors of the largest of K numbers, with the gradient of a softmax."""
    soft = block.softmax(1)
    hard = F.one_hot(block.argmax(1), block.shape[1]).movedim(-1, 1).to(soft)
    return hard + (soft - soft.detach())


class MultiScaleDiscriminator(nn.Module):
    """One discriminator for the image, one for the image at half its size, and so on."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, S*P, 1], the finest scale first."""
        scales: list[Tensor] = []
        features: list[Tensor] = []
        for network in self.networks:
            score = network(images)
            # The gradients of all repetitions are added up, for which bfloat16 is too coarse.
            scales.append(at_least_float32(score.logits.flatten(1)))  # [B, h*w]
            features += score.features
            images = F.avg_pool2d(images, 2)
        sizes = [logits.shape[1] for logits in scales]
        # Repeated to one length, so that each scale has the same share of any mean.
        length = min(math.lcm(*sizes), max(MOST_PLACES, *sizes))
        places = torch.arange(length, device=images.device)  # [P]
        repeated = [logits[:, places * logits.shape[1] // length] for logits in scales]  # [B, P]
        return vgx.Score(torch.cat(repeated, 1)[:, None, :, None], tuple(features))


def unconditional(part: str, inner: vgx.Encoder | vgx.Decoder | vgx.Discriminator) -> None:
    """Raise `RecipeError` for an inner part that takes labels or latents: it would get none."""
    if isinstance(inner, vgx.Discriminator) and inner.judges != "images":
        message = f"'{inner.type}' judges {inner.judges}; put one that judges images inside"
        raise vgx.RecipeError(f"{part}: inner: {message}")
    if isinstance(inner, vgx.Encoder) and inner.uses_decoder:
        raise vgx.RecipeError(f"{part}: inner: '{inner.type}' uses the decoder; use it by itself")
    if inner.conditional:
        raise vgx.RecipeError(
            f"{part}: inner: '{inner.type}' takes labels itself; put it outside, not inside"
        )
