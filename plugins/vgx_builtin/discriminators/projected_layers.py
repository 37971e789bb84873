"""What the discriminator `projected` has behind its backbone.

Letters: B images, F features, h x w a feature map, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vgx_builtin.discriminators.frozen_backbone import Bilinear, Sides
from vgx_builtin.modules import SLOPE, spectrally_normed

LARGEST = 8  # places a side that a head does not halve
KERNEL = 4  # places a side of the convolution that gives the logits


class Mixing(nn.Module):
    """Random projections that are never trained (Sauer et al. 2021, section 3.2).

    Each level's features are mixed by a 1x1 convolution. Then, from the deepest level up, each sum
    of a level and what came from the level below is doubled and goes through a 3x3 convolution.
    """

    def __init__(self, levels: Sequence[tuple[int, Sides]], width: int) -> None:
        """Take the features and sides of each level; level l has width * 2^l mixed features."""
        super().__init__()
        mixed = [width * 2**level for level in range(len(levels))]
        self.channels = [max(width, own // 2) for own in mixed]  # of what comes out
        sides = [own for _, own in levels]
        self.sides = [(2 * sides[0][0], 2 * sides[0][1]), *sides[:-1]]  # of what comes out
        own = zip(levels, mixed, strict=True)
        self.across_channels = nn.ModuleList(
            nn.Conv2d(before, after, 1) for (before, _), after in own
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(mixed, self.channels, strict=True)
        )
        self.doubling = nn.ModuleList(
            Bilinear(before, after, align_corners=True)
            for before, after in zip(sides, self.sides, strict=True)
        )
        for conv in (*self.across_channels, *self.across_scales):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
        self.requires_grad_(requires_grad=False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """L maps [B, F, h, w] -> as many [B, F', 2h, 2w], shallow first."""
        outputs: list[Tensor] = []
        for level in reversed(range(len(maps))):
            x = self.across_channels[level](maps[level])
            if outputs:
                x = x + outputs[-1]
            outputs.append(self.across_scales[level](self.doubling[level](x)))
        return outputs[::-1]


def head(features: int, sides: Sides, width: int) -> nn.Sequential:
    """Return the discriminator of a level: 4x4 convolutions of stride 2 down to 8 places a side.

    A last 4x4 convolution gives the logits; a smaller map has one logit. The features grow to 8
    times the width, as in the authors' program. All convolutions have spectral norm.
    """
    small, halvings = min(sides), 0
    while small > LARGEST:
        small, halvings = small // 2, halvings + 1
    layers: list[nn.Module] = []
    for left in reversed(range(halvings)):
        after = max(width, 8 * width >> left)
        # BatchNorm takes the mean away, and a bias with it.
        conv = nn.Conv2d(features, after, 4, stride=2, padding=1, bias=False)
        layers.append(nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)))
        features = after
    rows, columns = (min(KERNEL, side >> halvings) for side in sides)
    layers.append(nn.Conv2d(features, 1, (rows, columns), bias=False))
    network = nn.Sequential(*layers)
    spectrally_normed(network)
    return network
