"""A discriminator on several blocks of a frozen vision transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeInt

import vgx
from vgx_builtin.discriminators.projected_base import ProjectedBase

if TYPE_CHECKING:
    from torch import nn


class ProjectedVit(ProjectedBase, type="projected-vit"):
    """Small heads on the tokens of several blocks of a frozen vision transformer: StyleGAN-T's.

    Sauer et al. 2023, section 3.2, by default with DINO (Caron et al. 2021). Each head has a 1x1
    convolution, a residual convolution along the row of tokens, and a logit for each token; all
    have spectral norm, and BatchNorm over groups of 8 images. The logits of all heads stand side by
    side, [B, 1, 1, N], so that a loss counts each token of each head. The features are what each
    head has before its logits. The backbone gets no gradient and is saved with the run.

    Changed from the authors' program: no head on the embedded patches; the class token is not added
    to the others; images are resized bilinearly and never cropped. Any backbone with feature maps
    works; the tokens of a map are its places, row by row.
    """

    backbone: str = "vit_small_patch16_224.dino"
    blocks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (2, 5, 8, 11)
    """The blocks that have a head, 0 being the first."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, 1, N]."""
        del latent
        from torch import nn

        from vgx_builtin.discriminators.frozen_backbone import LevelsDiscriminator
        from vgx_builtin.discriminators.token_head import token_head

        try:
            backbone, levels = self.build_backbone(image, out_indices=self.blocks)
        except vgx.RecipeError as error:
            message = f"{error}; blocks is {[*self.blocks]}"
            raise vgx.RecipeError(message) from error
        heads = [token_head(features, h * w) for features, (h, w) in levels]
        return LevelsDiscriminator(backbone, nn.Identity(), heads)
