"""A discriminator that takes labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import vgx

if TYPE_CHECKING:
    from torch import nn


class Projection(vgx.Discriminator, type="projection"):
    """Another discriminator whose logits also depend on the label (Miyato and Koyama 2018).

    D(x, y) = D(x) + <v_y, f(x)> (eq. 3): v_y is a learned vector for the label, f the sum or mean
    over places of the ReLU of the inner discriminator's last features. Around `residual` this is
    the discriminator of the authors' program. The vectors have spectral norm when the inner
    discriminator has it.
    """

    conditional: ClassVar[bool] = True

    inner: vgx.Discriminator
    """The discriminator of the image alone."""
    pool: Literal["auto", "sum", "mean"] = "auto"
    """`sum` over places is that of the paper; `mean` suits grids of patches of any size. `auto`:
    the sum when the inner discriminator gives one logit for the image, else the mean."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1], labels [B] -> the inner one's Score."""
        from vgx_builtin.conditioning import ProjectionDiscriminator, classes
        from vgx_builtin.wrapping import output_on_black, unconditional

        unconditional("discriminator projection", self.inner)
        count = classes("discriminator projection", image)
        network = self.inner.build(image, latent)
        score = output_on_black(network, image)
        if not score.features:
            raise vgx.RecipeError(
                f"discriminator projection: inner: '{self.inner.type}' gives no features to "
                "compare labels with; use one that does, such as patchgan"
            )
        mean = score.logits.dim() > 2 if self.pool == "auto" else self.pool == "mean"
        return ProjectionDiscriminator(network, count, score.features[-1].shape[1], mean=mean)
