"""The network of the discriminator `unet`.

Letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import vgx
from vgx_builtin.modules import at_least_float32, glorot
from vgx_builtin.residual import ResidualBlock, SumPool, halving_blocks


class UnetDiscriminator(nn.Module):
    """Blocks that halve the image, a head for it, and blocks that double up to its pixels."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        """Take the channels of images, and those after each halving."""
        super().__init__()
        down = halving_blocks(channels, widths)
        up: list[nn.Module] = []
        before = widths[-1]
        for after in (*widths[-2::-1], widths[0]):
            # All but the deepest also take the encoder's output of the same size.
            up.append(ResidualBlock(before * (2 if up else 1), after, "double"))
            before = after
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.image = nn.Sequential(nn.ReLU(), SumPool(), glorot(nn.Linear(widths[-1], 1)))
        self.pixels = glorot(nn.Conv2d(widths[0], 1, 1))

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, 2H, W], and each block's output."""
        x, encoded, decoded = images * 2 - 1, [], []
        for block in self.down:
            x = block(x)
            encoded.append(x)
        whole = self.image(x)  # [B, 1]
        skipped = encoded[-2::-1]  # from deep to shallow
        for index, block in enumerate(self.up):
            x = block(torch.cat([x, skipped[index - 1]], 1) if index else x)
            decoded.append(x)
        pixels = self.pixels(x)  # [B, 1, H, W]
        # The gradients of all repetitions are added up, for which bfloat16 is too coarse.
        whole, pixels = at_least_float32(whole), at_least_float32(pixels)
        whole = whole[:, :, None, None].expand_as(pixels)  # [B, 1, H, W]
        return vgx.Score(torch.cat([whole, pixels], 2), (*encoded, *decoded))
