"""The heads of the discriminator `projected-vit`.

Letters: B images, F features, h x w a feature map, N tokens = h * w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.modules import SLOPE, spectrally_normed

GROUP = 8  # images that share the statistics of a norm
KERNEL = 9  # tokens that the residual convolution sees


def token_head(features: int, tokens: int) -> nn.Sequential:
    """Return a head: feature maps [B, F, h, w] -> logits [B, 1, 1, N]."""
    kernel = min(KERNEL, tokens - 1 + tokens % 2)  # an odd number
    network = nn.Sequential(
        nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (1, tokens))),  # [B, F, 1, N]
        _block(features, 1),
        _Residual(_block(features, kernel)),
        nn.Conv2d(features, 1, 1),
    )
    spectrally_normed(network)
    return network


def _block(features: int, kernel: int) -> nn.Sequential:
    """Return a convolution along the tokens, which are closed to a ring, a norm and LeakyReLU."""
    conv = nn.Conv2d(
        features, features, (1, kernel), padding=(0, kernel // 2), padding_mode="circular"
    )
    return nn.Sequential(conv, _GroupedBatchNorm(features), nn.LeakyReLU(SLOPE))


class _Residual(nn.Module):
    """(x + f(x)) / sqrt 2."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, 1, N] -> the same shape."""
        out: Tensor = (x + self.inner(x)) / 2**0.5
        return out


class _GroupedBatchNorm(nn.Module):
    """BatchNorm with the statistics of each 8 images alone, also in evaluation mode."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, 1, N] -> the same shape; the last group may have fewer images."""
        groups = [
            nn.functional.batch_norm(group, None, None, self.weight, self.bias, training=True)
            for group in torch.split(vgx.gather(x), GROUP)  # which may be of several processes
        ]
        return vgx.own_rows(torch.cat(groups))
