"""A discriminator that takes labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import vgx

if TYPE_CHECKING:
    from torch import nn


class Projection(vgx.Discriminator, type="projection"):
    """Another discriminator whose logits also depend on the label (Miyato and Koyama 2018).

    D(x, y) = D(x) + <v_y, f(x)> (eq. 3): v_y is a learned vector for the label, f the inner
    discriminator's last feature map, here its mean over places, so that it suits grids of any size.
    """

    conditional: ClassVar[bool] = True

    inner: vgx.Discriminator
    """The discriminator of the image alone."""

    def build(self, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1], labels [B] -> the inner one's Score."""
        from vgx_builtin.wrapping import (
            ProjectionDiscriminator,
            classes,
            output_on_black,
            unconditional,
        )

        unconditional("discriminator projection", self.inner)
        count = classes("discriminator projection", image)
        network = self.inner.build(image)
        features = output_on_black(network, image).features
        if not features:
            raise vgx.RecipeError(
                f"discriminator projection: inner: '{self.inner.type}' gives no features to "
                "compare labels with; use one that does, such as patchgan"
            )
        return ProjectionDiscriminator(network, count, features[-1].shape[1])

    def note(self, image: vgx.ImageSpec) -> str:
        """Return the inner discriminator's note."""
        return self.inner.note(image)

    def untrained(self) -> Self:
        """Return the same discriminator without outside weights."""
        return self.model_copy(update={"inner": self.inner.untrained()})
