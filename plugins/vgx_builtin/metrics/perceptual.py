"""Reconstructions beside their pictures, as a network sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Tensor, nn


class Perceptual(vgx.Metric, type="perceptual"):
    """Distance of picture and reconstruction in the features of a network; 0 to 4.

    mean over windows w of |f(x_w) / |f(x_w)| - f(y_w) / |f(y_w)||^2, a window being half a picture
    wide. As LPIPS (Zhang et al. 2018, eq. 1) without its learned factors, with windows of the
    picture in the place of places of feature maps, so that any network can be asked.
    """

    pairs: ClassVar[bool] = True

    features: vgx.Features = RandomConv()
    """The network."""
    windows: PositiveInt = 3
    """Windows along each side; they overlap by half with 3."""

    def build(self, image: vgx.ImageSpec) -> vgx.Gauge:
        """Make a fresh measurement."""
        from vgx_builtin.metrics.gauges import Mean

        half = vgx.ImageSpec((image.size + 1) // 2, image.channels)
        network = self.features.build(half)
        return Mean(self.type, lambda real, fake: self._distance(network, real, fake))

    def _distance(self, network: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """[B]  The distance of each picture [B, C, H, W] from its reconstruction."""
        from torch.nn import functional as F

        network.to(real.device)
        side = (real.shape[-1] + 1) // 2
        last, steps = real.shape[-1] - side, max(self.windows - 1, 1)
        places = [round(last * index / steps) for index in range(self.windows)]
        total = real.new_zeros(len(real))
        for top in places:
            for left in places:
                seen = [
                    F.normalize(network(x[:, :, top : top + side, left : left + side]))
                    for x in (real, fake)
                ]  # [B, F]
                total += (seen[0] - seen[1]).square().sum(1)
        return total / self.windows**2
