"""One discriminator for each of several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class MultiScale(vgx.Discriminator, type="multi-scale"):
    """The same discriminator at several scales, each with its own weights (Wang et al. 2018).

    The first takes the image, each further one its 2x2 averages (pix2pixHD, section 3.2). The
    logits are one column [B, 1, scales * P, 1], the finest scale first. Those of each scale are
    repeated to the same number P, the least common multiple of their numbers: so any mean over the
    column is the mean of the scales' means. P is at most 2^18. Where the multiple is larger, the
    scales still have equal shares, but some patches of a scale are repeated once more than others.
    The features are those of all scales, the finest first.
    """

    inner: vgx.Discriminator
    """The discriminator of each scale."""
    scales: Annotated[int, Field(ge=2)] = 2
    """Number of scales."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, S*P, 1]."""
        from vgx_builtin.modules import pixels, smaller
        from vgx_builtin.wrapping import MultiScaleDiscriminator, unconditional

        unconditional("discriminator multi-scale", self.inner)
        side = min(image.height, image.width)
        if side // 2 ** (self.scales - 1) < 4:
            raise vgx.RecipeError(
                f"discriminator multi-scale: scales: {self.scales}: they leave less than 4 of "
                f"{pixels(image)}; give at most {side.bit_length() - 2}"
            )
        networks = []
        for scale in range(self.scales):
            half = smaller(image, image.height // 2**scale, image.width // 2**scale)
            try:
                networks.append(self.inner.build(half, latent))
            except vgx.RecipeError as error:
                where = f"discriminator multi-scale: scale {scale + 1} of {self.scales}"
                raise vgx.RecipeError(f"{where}: {error}") from error
        return MultiScaleDiscriminator(networks)
