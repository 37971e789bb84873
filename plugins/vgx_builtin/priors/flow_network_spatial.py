"""The network of rectified flow over spatial latents.

Letters: B images, C channels, h x w places, F features.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgx_builtin.modules import normalisation
from vgx_builtin.priors.flow_network import Conditions


class SpatialBlock(nn.Module):
    """Two 3x3 convolutions after norms, the second scaled and shifted by conditions."""

    def __init__(self, before: int, after: int, conditions: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *normalisation("group", before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.conditions = nn.Linear(conditions, 2 * after)
        self.norm = nn.Sequential(*normalisation("group", after))
        self.last = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """[B, F, h, w]  Of features [B, F, h, w] and conditions [B, F]."""
        scale, shift = self.conditions(conditions)[:, :, None, None].chunk(2, 1)
        y = self.last(F.silu(self.norm(self.first(x)) * (1 + scale) + shift))
        both: Tensor = self.shortcut(x) + y
        return both


class SpatialField(nn.Module):
    """Directions at spatial latents: a U-Net, with a level at half the size where that is even."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, depth: int) -> None:
        super().__init__()
        channels, *sides = shape
        features = 4 * width
        self.conditions = Conditions(classes, features)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.halves = min(sides) >= 4 and all(side % 2 == 0 for side in sides)
        low = 2 * width if self.halves else width

        def blocks(before: int, after: int, number: int = depth) -> nn.ModuleList:
            widths = [before, *[after] * number]
            return nn.ModuleList(SpatialBlock(a, b, features) for a, b in pairwise(widths))

        self.down = blocks(width, width)
        self.middle = blocks(width, low, 2 * depth if self.halves else 1)
        self.up = blocks(low + width, width)
        last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.last = nn.Sequential(*normalisation("group", width), nn.SiLU(), last)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """[B, C, h, w]  At latents [B, C, h, w] and times [B]."""
        conditions, y = self.conditions(t, labels), self.first(x)
        for block in self.down:
            y = block(y, conditions)
        kept = y
        y = F.avg_pool2d(y, 2) if self.halves else y
        for block in self.middle:
            y = block(y, conditions)
        y = F.interpolate(y, scale_factor=2.0) if self.halves else y
        y = torch.cat([y, kept], 1)
        for block in self.up:
            y = block(y, conditions)
        direction: Tensor = self.last(y)
        return direction
