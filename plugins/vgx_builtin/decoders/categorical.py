"""A decoder of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class CategoricalDecoder(vgx.Decoder, type="categorical"):
    """Another decoder whose first latents are categories, as InfoGAN has them (Chen et al. 2016).

    A block of K numbers becomes the one-hot vector of the largest of them, so each category of
    latents from N(0, I) has the probability 1/K. The gradient is that of the block's softmax
    (straight-through). The other latents stay as they are. The loss `latent-regression` with the
    same `categories` lets the encoder find them.
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (10,)
    """The number of categories of each block, in the order of the latent's channels."""
    inner: vgx.Decoder
    """The decoder of categories and other latents."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from vgx_builtin.wrapping import WithCategories, unconditional

        unconditional("decoder categorical", self.inner)
        if sum(self.sizes) > latent.shape[0]:
            text = f"sizes: they need {sum(self.sizes)} channels, and the latent has"
            raise vgx.RecipeError(f"decoder categorical: {text} {latent.shape[0]}")
        inner = self.inner.build(latent, image)
        if isinstance(inner, vgx.Mapped):
            text = f"inner: '{self.inner.type}' has a mapping network; take one without"
            raise vgx.RecipeError(f"decoder categorical: {text}")
        return WithCategories(inner, self.sizes)
