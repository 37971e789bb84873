"""Any timm backbone as an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import vgx

if TYPE_CHECKING:
    from torch import nn


class Timm(vgx.Encoder, type="timm"):
    """Any timm backbone, with linear layers for mu and logvar on its pooled features."""

    backbone: str = "resnet18"
    """A model name that timm knows."""
    pretrained: bool = False
    """Start from the weights that timm fetches from the hub."""
    weights: Path | None = None
    """Start from a local safetensors file of the backbone instead."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> Gaussian over [B, Z]. The latent is flat."""
        from torch import nn
        from torchvision.transforms import Normalize

        from vgx_builtin.backbones import create, statistics
        from vgx_builtin.modules import GaussianEncoder, flat_size

        size = flat_size("encoder timm", latent)
        backbone = create(
            self.backbone, image, pretrained=self.pretrained, weights=self.weights, num_classes=0
        )
        mean, std = statistics(backbone, image)
        trunk = nn.Sequential(Normalize(mean, std), backbone)
        features = backbone.head_hidden_size or backbone.num_features
        return GaussianEncoder(trunk, nn.Linear(features, size), nn.Linear(features, size))

    def untrained(self) -> Self:
        """Return the same encoder without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
