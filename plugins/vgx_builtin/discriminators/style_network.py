"""Modules of the discriminator `style`.

Letters: B images, F and G features before and after, h x w places, N images of a group.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.modules import at_least_float32
from vgx_builtin.style_layers import SMALL, Blur, EqualConv, Leaky


class StyleBlock(nn.Module):
    """Two 3x3 convolutions, the second of which halves, beside a blurred and halved shortcut."""

    def __init__(self, before: int, after: int) -> None:
        """Make the block for so many features."""
        super().__init__()
        self.body = nn.Sequential(
            EqualConv(before, before, 3), Leaky(), EqualConv(before, after, 3, halve=True), Leaky()
        )
        self.blur, self.shortcut = Blur(), EqualConv(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h/2, w/2]."""
        halved = self.shortcut(self.blur(x, padding=1, stride=2))
        total: Tensor = (halved + self.body(x)) / math.sqrt(2)
        return total


class MinibatchDeviation(nn.Module):
    """A further feature: how much the images of a group differ, one number for all of them."""

    def __init__(self, group: int) -> None:
        """Take at most so many images together."""
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F + 1, h, w].

        The standard deviation at each place of each feature over the N images of a group, averaged
        over places and features. Image i is of the group i mod (B / N).
        """
        every = at_least_float32(vgx.gather(x))  # [B, F, h, w]
        n = max(n for n in range(1, self.group + 1) if len(every) % n == 0)
        groups = every.reshape(n, -1, *x.shape[1:])  # [N, B/N, F, h, w]
        deviation = (groups.var(0, correction=0) + SMALL).sqrt().mean((1, 2, 3))  # [B/N]
        plane = vgx.own_rows(deviation.to(x.dtype).repeat(n))[:, None, None, None]  # [B, 1, 1, 1]
        return torch.cat([x, plane.expand(-1, -1, *x.shape[2:])], 1)
