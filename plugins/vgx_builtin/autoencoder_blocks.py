"""The blocks of diffusers' `AutoencoderKL` and `AutoencoderTiny`, named as there.

Letters: B images, F and G features, h x w places.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPS = 1e-6  # of the norms


def run(block: Block, x: Tensor) -> Tensor:
    """Return `block.compute(x)`; a block with `recompute` keeps only x for its gradient."""
    if block.recompute and torch.is_grad_enabled():
        # Blocks draw no random numbers, so no state of a generator is kept.
        out: Tensor = checkpoint(block.compute, x, use_reentrant=False, preserve_rng_state=False)
        return out
    return block.compute(x)


def recompute_blocks(network: nn.Module) -> None:
    """Let all blocks of a network compute their activations again for the gradient."""
    for module in network.modules():
        if isinstance(module, ResnetBlock | Attention | TinyBlock):
            module.recompute = True


class Block(Protocol):
    """A part of a network whose activations can be computed again."""

    recompute: bool

    def compute(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h, w]."""
        ...


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, beside a shortcut."""

    recompute = False

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, EPS)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, after, EPS)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        change = before != after
        self.conv_shortcut = nn.Conv2d(before, after, 1) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h, w]."""
        return run(self, x)

    def compute(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h, w]."""
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        summed: Tensor = self.conv_shortcut(x) + out
        return summed


class Attention(nn.Module):
    """Self-attention of all places, with one head, beside a shortcut."""

    recompute = False

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        return run(self, x)

    def compute(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        places = self.group_norm(x).flatten(2).mT  # [B, h*w, F]
        query, key, value = (
            layer(places).unsqueeze(1) for layer in (self.to_q, self.to_k, self.to_v)
        )  # [B, 1, h*w, F]
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1)  # [B, h*w, F]
        out: Tensor = self.to_out[0](mixed).mT.reshape(x.shape)  # [B, F, h, w]
        return x + out


class TinyBlock(nn.Module):
    """Three 3x3 convolutions with ReLU between them, beside a shortcut; then ReLU."""

    recompute = False

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        return run(self, x)

    def compute(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        return F.relu(self.conv(x) + x)


class MidBlock(nn.Module):
    """A residual block, attention if wanted, and another residual block."""

    def __init__(self, width: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> the same."""
        for module in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = module(x)
        return x


class Down(nn.Module):
    """A 3x3 convolution of stride 2; its border is below and right of the image only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, 2h, 2w] -> [B, F, h, w]."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Up(nn.Module):
    """Each place repeated, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F, 2h, 2w]."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DownBlock(nn.Sequential):
    """Residual blocks of one width, then half the places on a side unless it is the last."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, *, last: bool) -> None:
        resnets = residual(before, after, blocks, groups)
        downsamplers = nn.Sequential(*([] if last else [Down(after)]))
        super().__init__(OrderedDict(resnets=resnets, downsamplers=downsamplers))


class UpBlock(nn.Sequential):
    """Residual blocks of one width, then twice the places on a side unless it is the last."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, *, last: bool) -> None:
        resnets = residual(before, after, blocks, groups)
        upsamplers = nn.Sequential(*([] if last else [Up(after)]))
        super().__init__(OrderedDict(resnets=resnets, upsamplers=upsamplers))


def residual(before: int, after: int, blocks: int, groups: int) -> nn.Sequential:
    """Return residual blocks, the first of which changes the width."""
    widths = [before] + [after] * blocks
    return nn.Sequential(*(ResnetBlock(*pair, groups) for pair in pairwise(widths)))


def levels(
    block: type[DownBlock | UpBlock], widths: Sequence[int], blocks: int, groups: int
) -> nn.Sequential:
    """Return a block for each width."""
    pairs = pairwise((widths[0], *widths))
    return nn.Sequential(*(
        block(*pair, blocks, groups, last=number == len(widths))
        for number, pair in enumerate(pairs, 1)
    ))  # fmt: skip
