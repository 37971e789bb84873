"""The residual block that encoder, decoder and discriminator share.

Letters: B images, F and G features before and after, h x w places.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vgx_builtin.modules import normalisation

Scale = Literal["halve", "keep", "double"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after a norm and ReLU, beside a shortcut (He et al. 2016b).

    A halving block averages 2x2 places after its convolutions, a doubling one repeats each place
    before them (Miyato et al. 2018, appendix B). On the shortcut the order is reversed: a 1x1
    convolution commutes with both, and costs less where there are fewer places.
    """

    def __init__(
        self, before: int, after: int, scale: Scale, norm: str = "none", *, first: bool = False
    ) -> None:
        """Make the block; the `first` one, on an image, begins with its convolution."""
        super().__init__()
        body = [] if first else [*normalisation(norm, before), nn.ReLU()]
        body += [nn.Upsample(scale_factor=2)] if scale == "double" else []
        # BatchNorm takes the mean away, and a bias with it.
        body += [nn.Conv2d(before, after, 3, padding=1, bias=norm != "batch")]
        body += [*normalisation(norm, after), nn.ReLU()]
        body += [nn.Conv2d(after, after, 3, padding=1)]
        body += [nn.AvgPool2d(2)] if scale == "halve" else []
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if scale == "halve" else []
        shortcut += [nn.Conv2d(before, after, 1)] if before != after else []
        shortcut += [nn.Upsample(scale_factor=2)] if scale == "double" else []
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h', w'] with half, the same or twice the places on a side."""
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


class SumPool(nn.Module):
    """The sum over all places."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F]."""
        return x.sum((2, 3))
