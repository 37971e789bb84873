"""The residual block that encoder, decoder and discriminator share.

Letters: B images, F and G features before and after, h x w places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from vgx_builtin.modules import glorot, normalisation

Scale = Literal["halve", "keep", "double"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after a norm and ReLU, beside a shortcut (He et al. 2016b).

    As in SNGAN (Miyato et al. 2018, appendix B, and the authors' program): a halving block averages
    2x2 places after its convolutions, and has as many features between them as before; a doubling
    block repeats each place before them, and has as many features between them as after. Where
    places or features change, the shortcut has a 1x1 convolution. There it comes after averaging or
    before repeating: it commutes with both, and costs less where there are fewer places. Weights
    start from Glorot's distribution, times sqrt 2 but on the shortcut.
    """

    def __init__(
        self,
        before: int,
        after: int,
        scale: Scale,
        norm: str = "none",
        *,
        first: bool = False,
        wide: bool = False,
    ) -> None:
        """Make the block; the `first` one, on an image, begins with its convolution.

        A `wide` halving block has as many features between its convolutions as after, as in BigGAN
        (Brock et al. 2019, appendix B).
        """
        super().__init__()
        between = before if scale == "halve" and not (first or wide) else after
        body = [] if first else [*normalisation(norm, before), nn.ReLU()]
        body += [nn.Upsample(scale_factor=2)] if scale == "double" else []
        # BatchNorm takes the mean away, and a bias with it.
        conv = nn.Conv2d(before, between, 3, padding=1, bias=norm != "batch")
        body += [glorot(conv, math.sqrt(2)), *normalisation(norm, between), nn.ReLU()]
        body += [glorot(nn.Conv2d(between, after, 3, padding=1), math.sqrt(2))]
        body += [nn.AvgPool2d(2)] if scale == "halve" else []
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if scale == "halve" else []
        learned = before != after or scale != "keep"
        shortcut += [glorot(nn.Conv2d(before, after, 1))] if learned else []
        shortcut += [nn.Upsample(scale_factor=2)] if scale == "double" else []
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h', w'] with half, the same or twice the places on a side."""
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


def halving_blocks(channels: int, widths: Sequence[int], *, wide: bool = False) -> list[nn.Module]:
    """Return a discriminator's blocks, each of which halves; the first one takes the image."""
    pairs = enumerate(pairwise((channels, *widths)))
    return [
        ResidualBlock(before, after, "halve", first=not index, wide=wide)
        for index, (before, after) in pairs
    ]


class SumPool(nn.Module):
    """The sum over all places."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F]."""
        return x.sum((2, 3))
