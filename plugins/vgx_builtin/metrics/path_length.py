"""How fast images change along paths between latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

import vgx
from vgx_builtin.features.random_conv import RandomConv

if TYPE_CHECKING:
    from torch import Tensor, nn


class PathLength(vgx.Metric, type="path-length"):
    """Perceptual path length: how much images change on a short way between latents.

    mean d(g(z(t)), g(z(t + eps))) / eps^2 with t uniform in [0, 1] (Karras et al. 2019, eq. 2). d
    is the squared distance of features divided by their length, or the paper's LPIPS. z(t) is a
    slerp between two draws from N(0, I), whose length changes evenly, or a lerp between two stored
    latents, or between what a mapping network makes of two draws (eq. 3). There is one pair for
    each generated image, `most` at most; both ends have one label. As in the authors' program, the
    lowest and the highest hundredth of the distances are left out.
    """

    features: vgx.Features = RandomConv()
    """The network."""
    lpips: Literal["vgg", "alex"] | None = None
    """LPIPS in this network in place of the features, as in the paper: `vgg`."""
    weights: Path | None = None
    """With `lpips`: a local safetensors file of torchvision's network; without one its weights are
    fetched once (AlexNet: 244 MB, VGG-16: 553 MB)."""
    between: Literal["prior", "codes", "mapped"] = "prior"
    """The ends of the paths: draws from N(0, I), stored latents of the run, or w of draws from
    N(0, I)."""
    eps: PositiveFloat = 1e-3
    """The length of the way, as a share of the path; the paper's is 1e-4, which is too short for
    the rounding of float32."""
    most: PositiveInt = 1000
    """The largest number of pairs."""

    @model_validator(mode="after")
    def _weights_of_lpips(self) -> Self:
        if self.weights is not None and self.lpips is None:
            message = "weights are those of lpips: write lpips: vgg or lpips: alex too"
            raise PydanticCustomError("weights", message)
        return self

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.features.networks import require_colours
        from vgx_builtin.lpips import Lpips, trunk_weights
        from vgx_builtin.metrics.paths import Paths

        network: nn.Module
        if self.lpips is None:
            network = self.features.build(image)
        else:
            require_colours("metric path-length", image)
            weights = trunk_weights(self.lpips, self.weights, "metric path-length")
            network = Lpips(self.lpips, weights)
        return Paths(network, self.between, self.eps, self.most, self.distance)

    def distance(self, network: nn.Module, near: Tensor, far: Tensor) -> Tensor:
        """[N]  The distance of images [N, C, H, W]: LPIPS, or squared in the network's features."""
        from torch.nn import functional as F

        if self.lpips is not None:
            distance: Tensor = network(near, far).double()
            return distance
        one, other = (F.normalize(network(images).double()) for images in (near, far))  # [N, F]
        return (one - other).square().sum(1)

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why images are too small for LPIPS."""
        from vgx_builtin.lpips import LEAST

        del real, generated
        least, side = LEAST[self.lpips] if self.lpips else 0, min(image.height, image.width)
        return f"{self.lpips} needs {least} pixels a side" if side < least else ""
