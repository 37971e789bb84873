"""A timm backbone that is never trained, and discriminators of its feature maps.

Letters: B images, C channels, H x W pixels, F features, h x w a feature map, N logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.backbones import statistics
from vgx_builtin.pretrained import Standardise

Sides = tuple[int, int]


class Bilinear(nn.Module):
    """Bilinear interpolation from one size to another, as two products of matrices.

    The same as `F.interpolate`, whose gradient differs from run to run on a GPU.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: Sides, after: Sides, *, align_corners: bool) -> None:
        super().__init__()
        for name, few, many in zip(("rows", "columns"), before, after, strict=True):
            one_each = torch.eye(few, dtype=torch.float64)[None]  # [1, few, few]
            weights = F.interpolate(one_each, many, mode="linear", align_corners=align_corners)
            # Not part of a run's state: a function of the sizes. Exact until a network is cast.
            self.register_buffer(name, weights[0].T.contiguous(), persistent=False)  # [many, few]

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, *before] -> [B, F, *after]."""
        return self.rows.to(x.dtype) @ x @ self.columns.to(x.dtype).T


class FrozenBackbone(nn.Module):
    """The feature maps of a backbone that is not trained and stays in evaluation mode."""

    def __init__(self, backbone: Any, image: vgx.ImageSpec, seen: vgx.ImageSpec) -> None:
        """Take the images that are judged, and those that the backbone sees."""
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.standardise = Standardise(*statistics(backbone, image))
        before, after = (image.height, image.width), (seen.height, seen.width)
        same = before == after
        self.resize = nn.Identity() if same else Bilinear(before, after, align_corners=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever mode the discriminator is put into."""
        del mode
        return nn.Module.train(self, mode=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, C, H, W] in [0, 1] -> feature maps [B, F, h, w], shallow first."""
        maps: list[Tensor] = self.backbone(self.standardise(self.resize(images)))
        return maps


class LevelsDiscriminator(nn.Module):
    """A frozen backbone, what mixes its maps, and a head for each of them."""

    def __init__(
        self, backbone: FrozenBackbone, mixing: nn.Module, heads: Sequence[nn.Sequential]
    ) -> None:
        """Take heads whose last layer gives the logits."""
        super().__init__()
        self.backbone, self.mixing, self.heads = backbone, mixing, nn.ModuleList(heads)

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, 1, N], what each head has before them."""
        logits, features = [], []
        maps = self.mixing(self.backbone(images)[-len(self.heads) :])
        for head, map_ in zip(self.heads, maps, strict=True):
            (*stages, last), x = head.children(), map_
            for stage in stages:
                x = stage(x)
            features.append(x)
            logits.append(last(x).flatten(2))  # [B, 1, h*w]
        return vgx.Score(torch.cat(logits, 2)[:, :, None], tuple(features))
