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
    high and wide. As LPIPS (Zhang et al. 2018, eq. 1) without its learned factors, with windows of
    the image instead of places of feature maps, so that any network can be used.
    """

    pairs: ClassVar[bool] = True

    features: vgx.Features = RandomConv()
    """The network."""
    windows: PositiveInt = 3
    """Windows along each side; 3 of them overlap by half."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import Mean
        from vgx_builtin.modules import smaller

        half = smaller(image, (image.height + 1) // 2, (image.width + 1) // 2)
        network = self.features.build(half)
        return Mean(self.type, lambda real, fake: self._distance(network, real, fake))

    def _distance(self, network: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """[B]  The distance of each image [B, C, H, W] from its reconstruction."""
        from torch.nn import functional as F

        network.to(real.device)
        rows, columns = (self._windows(side) for side in real.shape[2:])
        total = real.new_zeros(len(real))
        for row in rows:
            for column in columns:
                features = [
                    F.normalize(network(x[:, :, row, column])) for x in (real, fake)
                ]  # [B, F]
                total += (features[0] - features[1]).square().sum(1)
        return total / self.windows**2

    def _windows(self, side: int) -> list[slice]:
        """Return the pixels of the windows along a side of the image."""
        half, steps = (side + 1) // 2, max(self.windows - 1, 1)
        firsts = [round((side - half) * index / steps) for index in range(self.windows)]
        return [slice(first, first + half) for first in firsts]
