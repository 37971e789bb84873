"""Features of any timm backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class Timm(vgx.Features, type="timm"):
    """Any timm backbone with trained weights: its features before the classifier.

    Images are resized to the size that the backbone was trained with (bicubic, antialiased), and do
    not keep their proportions. They must be RGB or grey; for grey ones timm adapts the first layer.
    """

    backbone: str = "resnet50"
    """A model name that timm knows; `vit_small_patch14_dinov2.lvd142m` for instance."""
    weights: Path | None = None
    """A local safetensors file of the backbone; without one timm fetches the weights from the
    hub."""
    side: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Height and width that images are resized to; `null` is what the backbone was trained with."""

    def title(self) -> str:
        """Return the name of the backbone."""
        return f"timm {self.backbone}"

    def build(self, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: images [N, C, H, W] -> features [N, F]."""
        import timm

        from vgx_builtin.backbones import create, statistics
        from vgx_builtin.features.networks import TimmNetwork, require_colours
        from vgx_builtin.modules import smaller

        require_colours("features timm", image)
        trained = timm.get_pretrained_cfg(self.backbone) if timm.is_model(self.backbone) else None
        size = (trained.input_size[1:] if trained else None) or (image.height, image.width)
        height, width = (self.side, self.side) if self.side else size
        resized = smaller(image, height, width)
        backbone = create(
            self.backbone,
            resized,
            pretrained=self.weights is None,
            weights=self.weights,
            num_classes=0,
        )
        network = TimmNetwork(backbone, *statistics(backbone, resized), (height, width))
        if not isinstance(network.backbone.num_features, int):
            raise vgx.RecipeError(f"features timm: backbone: {self.backbone} gives no features")
        return network
