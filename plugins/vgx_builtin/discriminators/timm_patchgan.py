"""A PatchGAN on any timm backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import NonNegativeInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class TimmPatchGan(vgx.Discriminator, type="timm-patchgan"):
    """A timm backbone's last feature map, each place scored by a 1x1 convolution.

    The PatchGAN of Isola et al. 2017 on a network that can start from pretrained weights: ResNet50
    at 96 pixels gives a grid of 3x3 logits. Any backbone that gives feature maps works.
    """

    backbone: str = "resnet50"
    """A model name that timm knows."""
    pretrained: bool = False
    """Start from the weights that timm fetches from the hub."""
    weights: Path | None = None
    """Start from a local safetensors file of the backbone instead."""
    freeze: NonNegativeInt = 0
    """Number of stages, shallow ones first, that keep their initial weights."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` keeps the initial statistics and factors of the backbone's BatchNorm."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, h, w]."""
        del latent
        from vgx_builtin.backbones import create, statistics
        from vgx_builtin.modules import TimmPatchDiscriminator

        backbone = create(
            self.backbone,
            image,
            pretrained=self.pretrained,
            weights=self.weights,
            features_only=True,
        )
        if self.batch_norm == "frozen":
            from timm.layers import freeze_batch_norm_2d

            backbone = freeze_batch_norm_2d(backbone)
        self._freeze(backbone)
        return TimmPatchDiscriminator(backbone, *statistics(backbone, image))

    def _freeze(self, backbone: Any) -> None:
        """Freeze the first `freeze` stages and all that comes before them."""
        if not self.freeze:
            return
        names = [name.replace(".", "_") for name in backbone.feature_info.module_name()]
        children = [name for name, _ in backbone.named_children()]
        separate = [name for name in names if name in children]
        if self.freeze > len(separate):
            raise vgx.RecipeError(
                f"discriminator timm-patchgan: freeze: {self.freeze}: {self.backbone} has "
                f"{len(separate)} stages that can be frozen: {', '.join(separate) or 'none'}"
            )
        for name in children[: children.index(names[self.freeze - 1]) + 1]:
            backbone.get_submodule(name).requires_grad_(False)

    def untrained(self) -> Self:
        """Return the same discriminator without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
