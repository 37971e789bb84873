"""Reconstructions compared with their images in the features of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Tensor, nn


class Perceptual(vgx.Metric, type="perceptual"):
    """Distance of image and reconstruction in the features of a network; 0 to 4.

    mean over windows w of |f(x_w) / |f(x_w)| - f(y_w) / |f(y_w)||^2, a window being half an image
    wide. As LPIPS (Zhang et al. 2018, eq. 1) without its learned factors, with windows of the image
    instead of places of feature maps, so that any network can be used.
    """

    pairs: ClassVar[bool] = True

    features: vgx.Features = RandomConv()
    """The network."""
    windows: PositiveInt = 3
    """Windows along each side; 3 of them overlap by half."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import Mean

        half = vgx.ImageSpec((image.size + 1) // 2, image.channels)
        network = self.features.build(half)
        return Mean(self.type, lambda real, fake: self._distance(network, real, fake))

    def _distance(self, network: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """[B]  The distance of each image [B, C, H, W] from its reconstruction."""
        from torch.nn import functional as F

        network.to(real.device)
        side = (real.shape[-1] + 1) // 2
        last, steps = real.shape[-1] - side, max(self.windows - 1, 1)
        places = [round(last * index / steps) for index in range(self.windows)]
        total = real.new_zeros(len(real))
        for top in places:
            for left in places:
                features = [
                    F.normalize(network(x[:, :, top : top + side, left : left + side]))
                    for x in (real, fake)
                ]  # [B, F]
                total += (features[0] - features[1]).square().sum(1)
        return total / self.windows**2
