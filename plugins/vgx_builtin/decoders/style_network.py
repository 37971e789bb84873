"""The network of the decoder `style`.

Letters: B images, C channels, H x W pixels, h x w places, F features, Z numbers of a latent, S
numbers of a style, L layers that take a style.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.modules import at_least_float32
from vgx_builtin.style_layers import SMALL, Blur, EqualLinear, Leaky, ModulatedConv

RATE = 0.01  # of the mapping network, as a share of the learning rate


class StyleNetwork(nn.Module):
    """A mapping network from latents to styles, and a network that draws images of styles."""

    w_mean: Tensor
    seen: Tensor

    def __init__(
        self, latent: int, channels: int, sides: tuple[int, int], widths: Sequence[int],
        *, styles: int, mapping: int, noise: bool, mixing: float, decay: float,
    ) -> None:  # fmt: skip
        """Make both; `sides` are h x w of the first feature map, whose width comes first."""
        super().__init__()
        self.mixing, self.decay = mixing, decay
        layers: list[nn.Module] = []
        for number in range(mapping):
            before = styles if number else latent
            layers += [EqualLinear(before, styles, rate=RATE), Leaky()]
        self.mapping = nn.Sequential(*layers)
        self.register_buffer("w_mean", torch.zeros(styles))
        self.register_buffer("seen", torch.zeros(()))  # batches
        self.start = nn.Parameter(torch.randn(1, widths[0], *sides))
        layer = partial(StyleConv, styles=styles, noise=noise)
        self.convolutions = nn.ModuleList([layer(widths[0], widths[0], sides)])
        for before, after in pairwise(widths):
            sides = 2 * sides[0], 2 * sides[1]
            self.convolutions.append(layer(before, after, sides, double=True))
            self.convolutions.append(layer(after, after, sides))
        self.colours = nn.ModuleList(
            ModulatedConv(width, channels, 1, styles, demodulate=False) for width in widths
        )
        self.blur = Blur()

    @property
    def layers(self) -> int:
        """L, the number of styles: colours have that of the convolution after them, if any."""
        return len(self.convolutions) + 1

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, Z] -> logits [B, C, H, W]."""
        return self.decode_mapped(self.map(z))

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [B, Z] -> a style for each layer [B, L, S].

        All layers have the same; with style mixing, in training, the layers from a random one on
        have that of another latent from N(0, I).
        """
        del labels
        w = self._styles(z)  # [B, S]
        if self.training:
            self._follow(w.detach())
        every = w[:, None].expand(-1, self.layers, -1)  # [B, L, S]
        if not (self.training and self.mixing):
            return every
        others = self._styles(torch.randn_like(z))[:, None]  # [B, 1, S]
        drawn, mixed = (torch.rand(len(z), 1, device=z.device) for _ in range(2))  # [B, 1] each
        first = (1 + drawn * (self.layers - 1)).floor()  # the first layer of the other latent
        layers = torch.arange(self.layers, device=z.device)  # [L]
        other = (layers >= first) & (mixed < self.mixing)  # [B, L]
        return torch.where(other[:, :, None], others, every)

    def _styles(self, z: Tensor) -> Tensor:
        """Latents [B, Z] -> styles [B, S], at least in float32."""
        w: Tensor = self.mapping(z * (z.square().mean(1, keepdim=True) + SMALL).rsqrt())
        return at_least_float32(w)

    def _follow(self, w: Tensor) -> None:
        """Let the mean follow styles [B, S]: as a plain mean over the first batches."""
        share = (1 / (self.seen + 1)).clamp(min=1 - self.decay)
        mean = vgx.mean_over_processes(w.mean(0)).to(self.w_mean.dtype)  # [S]
        self.w_mean.lerp_(mean, share)
        self.seen.add_(1)

    def decode_mapped(self, w: Tensor) -> Tensor:
        """Styles [B, L, S] -> logits [B, C, H, W]: the sum of all colours."""
        first, *others = self.convolutions
        x = first(self.start.expand(len(w), -1, -1, -1), w[:, 0])  # [B, F, h, w]
        images = self.colours[0](x, w[:, 1])  # [B, C, h, w]
        pairs = zip(others[::2], others[1::2], self.colours[1:], strict=True)
        for index, (double, keep, colours) in enumerate(pairs):
            one, two, three = w[:, 2 * index + 1 : 2 * index + 4].unbind(1)  # [B, S] each
            x = keep(double(x, one), two)
            images = self.blur.doubled(images) + colours(x, three)
        logits: Tensor = images
        return logits


class StyleConv(nn.Module):
    """A modulated 3x3 convolution, noise of learned strength if there is any, and LeakyReLU."""

    noise: Tensor  # [h, w]  in evaluation mode

    def __init__(
        self, before: int, after: int, sides: tuple[int, int],
        *, styles: int, noise: bool, double: bool = False,
    ) -> None:  # fmt: skip
        """Make the layer, which gives h x w places, `sides`."""
        super().__init__()
        self.conv = ModulatedConv(before, after, 3, styles, double=double)
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        if noise:
            self.register_buffer("noise", torch.randn(sides))
        self.activation = Leaky()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[B, F, h, w] or half of h and w, styles [B, S] -> [B, F', h, w]."""
        x = self.conv(x, w)
        if self.strength is not None:
            noise = self.noise.to(x.dtype)
            if self.training:  # other noise for each image
                noise = torch.randn(len(x), 1, *noise.shape, device=x.device, dtype=x.dtype)
            x = x + noise * self.strength
        activated: Tensor = self.activation(x)
        return activated
