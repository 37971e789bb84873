"""The module of the loss `alignment`.

Letters: B images, C channels, H x W pixels, F features, h x w places, P = h * w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.pretrained import Standardise


class AlignmentTerm(nn.Module):
    """The term of `alignment`: a frozen backbone, and the matrix that takes latents to features."""

    def __init__(
        self,
        backbone: Any,
        mean: Sequence[float],
        std: Sequence[float],
        sides: tuple[int, int],
        channels: int,
        margins: tuple[float, float],
    ) -> None:
        """Take the sides of the backbone's images and the channels of the latents."""
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.sides, self.margins = sides, margins
        self.projection = nn.Conv2d(channels, backbone.feature_info.channels()[-1], 1, bias=False)
        self.standardise = Standardise(mean, std)

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 where the latents are as similar as the features, by margins."""
        z, features = self.projection(step.z), self._features(step.real)  # [B, F, h, w]
        if features.shape != z.shape:
            given, wanted = ([*x.shape[2:]] for x in (features, z))
            message = f"the backbone's last map has {given} places, and the latents have {wanted}"
            raise vgx.RecipeError(f"alignment: {message}; use another backbone")
        z, features = (F.normalize(x.flatten(2), dim=1) for x in (z, features))  # [B, F, P]
        cosine, distance = self.margins
        near = (1 - cosine - (z * features).sum(1)).relu().mean()
        apart = (z.mT @ z - features.mT @ features).abs()  # [B, P, P]
        return near + (apart - distance).relu().mean()

    @torch.no_grad()
    def _features(self, real: Tensor) -> Tensor:
        """[B, F, h, w]  The last feature map of images [B, C, H, W]."""
        self.backbone.eval()  # whatever mode the networks that are trained are in
        images = F.interpolate(real, self.sides, mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self.backbone(self.standardise(images))[-1]
        return features
