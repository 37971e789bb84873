"""A discriminator on several feature levels of a frozen backbone."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import PositiveInt

import vgx
from vgx_builtin.discriminators.projected_base import ProjectedBase

if TYPE_CHECKING:
    from torch import nn


class Projected(ProjectedBase, type="projected"):
    """Small discriminators on the feature maps of a frozen timm backbone: Projected GAN.

    Sauer et al. 2021, "Projected GANs Converge Faster". The maps of several levels are mixed by
    random convolutions that are never trained: 1x1 in each level, then 3x3 from the deepest level
    up, each after a bilinear doubling (section 3.2). Each level has a discriminator with spectral
    norm and BatchNorm; their logits stand side by side, [B, 1, 1, N]. The features are what each
    has before its logits. Backbone and mixing get no gradient and are saved with the run.

    The authors' program mixes levels by 1x1 convolutions; 3x3 is the paper's. Kaiming weights,
    without bias. Its augmentation is not part of this: see `diff_augment`.
    """

    backbone: str = "tf_efficientnet_lite0"
    """A model name that timm knows; its feature maps must become smaller with each level."""
    levels: PositiveInt = 4
    """Number of feature maps that are judged, the deepest ones."""
    width: PositiveInt = 64
    """Mixed features of the shallowest level; each further level has twice as many."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, 1, N]."""
        del latent
        from vgx_builtin.discriminators.frozen_backbone import LevelsDiscriminator
        from vgx_builtin.discriminators.projected_layers import Mixing, head

        backbone, levels = self.build_backbone(image)
        where = f"discriminator projected: backbone: {self.backbone}"
        if len(levels) < self.levels:
            message = f"{where} has {len(levels)} feature maps; use levels: {len(levels)} or fewer"
            raise vgx.RecipeError(message)
        levels = levels[-self.levels :]
        sides = [own for _, own in levels]
        if any(min(few) >= min(many) > 1 for many, few in pairwise(sides)):
            message = "has maps of one size, which can't be mixed across scales"
            raise vgx.RecipeError(
                f"{where} {message}; use type: projected-vit, or another backbone"
            )
        mixing = Mixing(levels, self.width)
        outputs = zip(mixing.channels, mixing.sides, strict=True)
        heads = [head(features, own, self.width) for features, own in outputs]
        return LevelsDiscriminator(backbone, mixing, heads)
