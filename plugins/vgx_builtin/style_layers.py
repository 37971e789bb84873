"""The layers of StyleGAN2 (Karras et al. 2020): equalised learning rates, blurred resampling.

Letters: B images, F and G features before and after, h x w places, S numbers of a style.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)  # of the blur, along each axis
SMALL = 1e-8  # keeps roots and quotients finite


class EqualLinear(nn.Module):
    """A linear layer with an equalised learning rate (Karras et al. 2018, section 4.1).

    y = rate (x W^T / sqrt F + b), where all W start from N(0, 1) / rate. So Adam changes each
    layer's weights equally fast, whatever their number, times `rate`.
    """

    def __init__(self, before: int, after: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        """Make the layer, whose biases start as `bias`."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full((after,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(before), rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, F] -> [B, G]."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution with an equalised learning rate, which may halve what is blurred first."""

    def __init__(
        self, before: int, after: int, size: int, *, halve: bool = False, bias: bool = True
    ) -> None:
        """Make a convolution of size x size places, an odd number."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale = 1 / math.sqrt(before * size * size)
        self.blur = Blur() if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, G, h, w], or half of h and w."""
        weight = self.weight * self.scale
        padding = weight.shape[2] // 2
        if self.blur is None:
            return F.conv2d(x, weight, self.bias, padding=padding)
        return F.conv2d(self.blur(x, 1 + padding), weight, self.bias, stride=2)


class Blur(nn.Module):
    """The blur [1, 3, 3, 1] along both axes, which also doubles or halves (Zhang 2019)."""

    kernel: Tensor  # [1, 1, 4, 4], of sum 1

    def __init__(self) -> None:
        """Make the kernel, which no checkpoint has to hold."""
        super().__init__()
        taps = torch.tensor(TAPS) / sum(TAPS)
        self.register_buffer("kernel", taps.outer(taps)[None, None], persistent=False)

    def forward(self, x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
        """[B, F, h, w] -> [B, F, h', w'] with h' = (h + 2 padding - 4) // stride + 1."""
        return F.conv2d(x, self._of(x, gain), padding=padding, stride=stride, groups=x.shape[1])

    def doubled(self, x: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F, 2h, 2w]: zeros between the places, then blurred times 4."""
        weight = self._of(x, 4.0)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=x.shape[1])

    def _of(self, x: Tensor, gain: float) -> Tensor:
        return (self.kernel * gain).to(x.dtype).expand(x.shape[1], 1, -1, -1)


class ModulatedConv(nn.Module):
    """A convolution whose weights are multiplied by each image's style (section 2.2).

    With the style s of an image, w'_gfk = s_f w_gfk, and with `demodulate` the weights are
    w''_gfk = w'_gfk / sqrt(sum_fk w'_gfk^2 + 1e-8), eqs. 1 and 3. The same is computed here by
    scaling what goes in and what comes out, so all images share one convolution. With `double`
    zeros are put between the places first, and the result is blurred.
    """

    def __init__(
        self, before: int, after: int, size: int, styles: int, *,
        demodulate: bool = True, double: bool = False,
    ) -> None:  # fmt: skip
        """Make the convolution, and the linear layer that gives s of a style of so many numbers."""
        super().__init__()
        self.style = EqualLinear(styles, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale, self.demodulate = 1 / math.sqrt(before * size * size), demodulate
        self.blur = Blur() if double else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[B, F, h, w], styles [B, S] -> [B, G, h, w], or twice h and w."""
        s = self.style(w)  # [B, F]
        weight = self.weight * self.scale  # [G, F, size, size]
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        else:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [B, G, 2h + 1, 2w + 1]
            x = self.blur(x, padding=1, gain=4.0)  # [B, G, 2h, 2w]
        if self.demodulate:
            energy = s.square() @ weight.square().sum((2, 3)).T  # [B, G]
            x = x * (energy + SMALL).rsqrt().to(x.dtype)[:, :, None, None]
        return x + self.bias.to(x.dtype)[:, None, None]


class Leaky(nn.Module):
    """LeakyReLU times sqrt 2, which keeps the variance."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return F.leaky_relu(x, 0.2) * math.sqrt(2)
