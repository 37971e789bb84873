"""The modules of BigGAN: class-conditional BatchNorm, its block, attention, orthogonal weights.

Letters: B images, C channels, H x W pixels, Z the size of the latent, F and G features before and
after, E numbers of a class, D numbers of a condition, h x w places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx


class ConditionalNorm(nn.Module):
    """BatchNorm whose gain and bias are linear in a condition (de Vries et al. 2017).

    As in the authors' program of BigGAN the gain is 1 plus the linear layer's output, and neither
    layer has a bias.
    """

    def __init__(self, features: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.gain = nn.Linear(condition, features, bias=False)
        self.bias = nn.Linear(condition, features, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, F, h, w] and a condition [B, D] -> [B, F, h, w]."""
        gain = 1 + self.gain(condition)[:, :, None, None]  # [B, F, 1, 1]
        bias = self.bias(condition)[:, :, None, None]  # [B, F, 1, 1]
        out: Tensor = self.norm(x) * gain + bias
        return out


class ConditionalBlock(nn.Module):
    """The doubling block of BigGAN's generator (Brock et al. 2019, figure 15 b).

    Norm, ReLU, doubling by repeating each place, convolution, norm, ReLU, convolution, beside a 1x1
    convolution. That comes before its doubling, with which it commutes.
    """

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(before, condition)
        # BatchNorm takes the mean away, and a bias with it.
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm2 = ConditionalNorm(after, condition)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)
        self.upsample = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, F, h, w] and a condition [B, D] -> [B, G, 2h, 2w]."""
        out = self.conv1(self.upsample(self.norm1(x, condition).relu()))
        out = self.conv2(self.norm2(out, condition).relu())
        doubled: Tensor = self.upsample(self.shortcut(x)) + out
        return doubled


class NonLocal(nn.Module):
    """Self-attention beside a shortcut (Zhang et al. 2019, "SAGAN", eq. 1 to 3).

    As in the authors' program of BigGAN: queries and keys have an eighth of the features, values
    half of them, and keys and values are pooled by maxima of 2x2 places. Its factor starts at 0, so
    at first it changes nothing.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        few, half = max(features // 8, 1), max(features // 2, 1)
        self.query = nn.Conv2d(features, few, 1, bias=False)
        self.key = nn.Conv2d(features, few, 1, bias=False)
        self.value = nn.Conv2d(features, half, 1, bias=False)
        self.out = nn.Conv2d(half, features, 1, bias=False)
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F, h, w]."""
        query = self.query(x).flatten(2)  # [B, F/8, h*w]
        key, value = (
            F.max_pool2d(layer(x), 2, ceil_mode=True).flatten(2)  # [B, ., h*w/4]
            for layer in (self.key, self.value)
        )
        shares = (query.mT @ key).softmax(2)  # [B, h*w, h*w/4]
        seen = (value @ shares.mT).unflatten(2, x.shape[2:])  # [B, F/2, h, w]
        attended: Tensor = x + self.factor * self.out(seen)
        return attended


class BigGanGenerator(nn.Module):
    """Latents in pieces: the first gives the first map, each further one goes into a block."""

    def __init__(
        self, latent: int, classes: int, embedding: int, blocks: Sequence[tuple[int, int]],
        sides: tuple[int, int], channels: int, attended: int | None,
    ) -> None:  # fmt: skip
        """Make a block for each pair of features; `attended` is followed by attention."""
        super().__init__()
        pieces = len(blocks) + 1
        self.sizes = [latent // pieces + (i < latent % pieces) for i in range(pieces)]
        first, last, (height, width) = blocks[0][0], blocks[-1][1], sides
        self.embedding = nn.Embedding(classes, embedding)
        self.first = nn.Sequential(
            nn.Linear(self.sizes[0], first * math.prod(sides)),
            nn.Unflatten(1, (first, height, width)),
        )
        self.blocks = nn.ModuleList(
            ConditionalBlock(before, after, embedding + size)
            for (before, after), size in zip(blocks, self.sizes[1:], strict=True)
        )
        self.attention = nn.ModuleList(
            nn.Identity() if index != attended else NonLocal(after)
            for index, (_, after) in enumerate(blocks)
        )
        self.last = nn.Sequential(
            nn.BatchNorm2d(last), nn.ReLU(), nn.Conv2d(last, channels, 3, padding=1)
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [B, Z], labels [B] -> logits [B, C, H, W]."""
        first, *others = torch.split(z, self.sizes, 1)
        vectors = self.embedding(labels)  # [B, E]
        x = self.first(first)  # [B, F, h, w]
        for block, attention, piece in zip(self.blocks, self.attention, others, strict=True):
            x = attention(block(x, torch.cat([vectors, piece], 1)))
        logits: Tensor = self.last(x)
        return logits


def orthogonal(network: nn.Module) -> nn.Module:
    """Draw every weight matrix orthogonal and set biases to 0 (Saxe et al. 2014).

    The rows of a convolution's matrix are its filters.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def place_of(part: str, side: int | None, sides: Sequence[int]) -> int | None:
    """Return where the maps have this side. Raises `RecipeError` when they have it nowhere."""
    if side is None or side in sides:
        return None if side is None else sides.index(side)
    there = ", ".join(map(str, sides))
    raise vgx.RecipeError(
        f"{part}: attention: {side}: the shorter side of its maps is {there}; give one of these, "
        "or null"
    )
