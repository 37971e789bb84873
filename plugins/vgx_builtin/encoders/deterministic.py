"""The encoder of a plain autoencoder, which draws nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vgx

if TYPE_CHECKING:
    from torch import nn


class Deterministic(vgx.Encoder, type="deterministic"):
    """The mean of another encoder's posterior, without sampling, as in a plain autoencoder.

    z = mean(x). Weights that the mean does not depend on, those of logvar, are frozen.
    """

    inner: vgx.Encoder
    """The encoder whose mean is taken."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior whose sample is its mean [B, *Z]."""
        from vgx_builtin.wrapping import PointEncoder, mean_of

        return PointEncoder(mean_of(self.type, self.inner, image, latent))
