"""How fast images change along paths between latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Tensor, nn


class PathLength(vgx.Metric, type="path-length"):
    """Perceptual path length: how much images change on a short way between latents.

    mean |f(g(z(t))) - f(g(z(t + eps)))|^2 / eps^2 with t uniform in [0, 1] (Karras et al. 2019,
    eq. 2), where f are features divided by their length, in place of LPIPS. z(t) is a slerp between
    two draws from N(0, I), whose length changes evenly, or a lerp between two stored latents. There
    is one pair for each generated image, `most` at most; both ends have one label. As in the
    authors' program, the lowest and the highest hundredth of the distances are left out.
    """

    features: vgx.Features = RandomConv()
    """The network."""
    between: Literal["prior", "codes"] = "prior"
    """The ends of the paths: draws from N(0, I), or stored latents of the run."""
    eps: PositiveFloat = 1e-3
    """The length of the way, as a share of the path; the paper's is 1e-4, which is too short for
    the rounding of float32."""
    most: PositiveInt = 1000
    """The largest number of pairs."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.paths import Paths

        return Paths(self.features.build(image), self.between, self.eps, self.most, self.distance)

    def distance(self, network: nn.Module, near: Tensor, far: Tensor) -> Tensor:
        """[N]  The squared distance of images [N, C, H, W] in the features of a network."""
        from torch.nn import functional as F

        one, other = (F.normalize(network(images).double()) for images in (near, far))  # [N, F]
        return (one - other).square().sum(1)
