"""A decoder that takes labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class LabelledDecoder(vgx.Decoder, type="labelled"):
    """Another decoder that also takes a learned vector for the label (Mirza and Osindero 2014).

    The vector is appended to a flat latent, and to the channels of a spatial one at every place;
    the inner decoder is built for that larger latent. With a mapping network inside, w has the
    label. `style` must not mix styles, since those of another latent would have no label.
    """

    conditional: ClassVar[bool] = True

    inner: vgx.Decoder
    """The decoder of latent and label."""
    embedding: PositiveInt = 32
    """The length of the vector."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z], labels [B] -> logits [B, C, H, W]."""
        from vgx_builtin.conditioning import (
            ConditionalDecoder,
            ConditionalMappedDecoder,
            classes,
        )
        from vgx_builtin.decoders.style import StyleDecoder
        from vgx_builtin.wrapping import unconditional

        unconditional("decoder labelled", self.inner)
        if isinstance(self.inner, StyleDecoder) and self.inner.mixing:
            text = "mixed styles would have random numbers in place of a label"
            raise vgx.RecipeError(f"decoder labelled: inner: {text}; write 'mixing: 0'")
        count = classes("decoder labelled", image)
        channels, *places = latent.shape
        larger = vgx.LatentSpec((channels + self.embedding, *places))
        inner = self.inner.build(larger, image)
        kind = ConditionalMappedDecoder if isinstance(inner, vgx.Mapped) else ConditionalDecoder
        return kind(inner, count, self.embedding)
