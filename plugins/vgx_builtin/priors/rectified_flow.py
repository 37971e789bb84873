"""Rectified flow over latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class RectifiedFlow(vgx.Prior, type="rectified-flow"):
    """A flow from noise to latents along straight lines (Liu et al. 2022, Lipman et al. 2022).

    With x_0 ~ N(0, I), a latent x_1 and t ~ U(0, 1), the network v learns the direction of the line
    between them: with x_t = (1 - t) x_0 + t x_1 the loss is the mean over all numbers of
    (v(x_t, t) - (x_1 - x_0))^2 (Liu et al., eq. 1). New latents are solutions of dx/dt = v(x, t)
    from t = 0 to 1. Latents are normalised by their mean and deviation by channel. The network is a
    residual network of linear layers for flat latents, and a U-Net of at most two levels for
    spatial ones; t and the label shift and scale its features.
    """

    conditional: ClassVar[bool] = True

    width: PositiveInt = 64
    """Number of features: of spatial latents at their full size, twice as many at half of it; of
    flat latents four times as many."""
    depth: PositiveInt = 2
    """Number of residual blocks at each size, on the way down and on the way up; of flat latents
    twice as many in all."""

    def build(self, latent: vgx.LatentSpec, codes: vgx.CodeSpec) -> nn.Module:
        """Make a module with `loss(latents, labels, generator)` and `draw(n, labels, generator)`.

        `draw` also takes `steps`, `solver` ("euler" or "heun") and `temperature`, by which the
        noise is multiplied.
        """
        from vgx_builtin.priors.flow_network import FlatField, Flow
        from vgx_builtin.priors.flow_network_spatial import SpatialField

        if len(latent.shape) == 1:
            field: nn.Module = FlatField(
                latent.shape[0], codes.classes, 4 * self.width, 2 * self.depth
            )
        else:
            field = SpatialField(latent.shape, codes.classes, self.width, self.depth)
        return Flow(field, latent.shape, codes.mean, codes.deviation)
