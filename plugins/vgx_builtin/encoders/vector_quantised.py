"""An encoder with a codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class VectorQuantised(vgx.Encoder, type="vector-quantised"):
    """Another encoder's means, replaced by a codebook's nearest vectors (van den Oord et al. 2017).

    At each place of a spatial latent the channels of the mean e are one vector, and a flat latent
    is one vector: z = c_k, k = argmin_j |e - c_j| (eq. 1 and 2). The gradient with respect to z
    goes straight through to e. The codebook learns from the loss `vq` only; a vector that is the
    nearest of no place gets no gradient. Weights that the mean does not depend on, those of logvar,
    are frozen.
    """

    inner: vgx.Encoder
    """The encoder whose mean is quantised."""
    codes: Annotated[int, Field(ge=2)] = 512
    """Number of vectors in the codebook; they start uniform in [-1 / codes, 1 / codes],
    `normalised` ones from N(0, I)."""
    normalised: bool = False
    """Scale means and vectors to length 1, so that the nearest is the one of the nearest direction;
    with few channels far more of the codebook is used (Yu et al. 2022, section 3.2)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with `encoded`, `codes` [B, *Z]."""
        from vgx_builtin.wrapping import QuantisedEncoder, freeze_all_but_mean

        inner = freeze_all_but_mean(self.inner.build(image, latent), image)
        return QuantisedEncoder(inner, self.codes, latent.shape[0], normalised=self.normalised)

    def note(self, image: vgx.ImageSpec) -> str:
        """Return the inner encoder's note."""
        return self.inner.note(image)

    def untrained(self) -> Self:
        """Return the same encoder without outside weights."""
        return self.model_copy(update={"inner": self.inner.untrained()})
