"""The perceptual distance with learned factors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import vgx


class LpipsMetric(vgx.Metric, type="lpips"):
    """Perceptual distance of image and reconstruction: LPIPS, version 0.1 (Zhang et al. 2018).

    sum over layers of mean w (f(x) - f(y))^2, with f a layer's map, each place of it scaled to
    length 1, and w the learned factors of its channels (eq. 1); mean over all images. Values in
    `alex` and `vgg` do not compare with each other.
    """

    pairs: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    network: Literal["alex", "vgg"] = "alex"
    """`alex`: AlexNet, which the authors measure with; `vgg`: VGG-16, as in papers on latent
    diffusion."""
    weights: Path | None = None
    """A local safetensors file of torchvision's network; without one its weights are fetched once
    (AlexNet: 244 MB, VGG-16: 553 MB)."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.features.networks import require_colours
        from vgx_builtin.lpips import Lpips, trunk_weights
        from vgx_builtin.metrics.states import Mean

        require_colours("metric lpips", image)
        network = Lpips(self.network, trunk_weights(self.network, self.weights, "metric lpips"))
        return Mean(self.type, lambda real, fake: network.to(real.device)(real, fake))

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why images are too small."""
        from vgx_builtin.lpips import LEAST

        del real, generated
        least, side = LEAST[self.network], min(image.height, image.width)
        if side >= least:
            return ""
        instead = "" if side < LEAST["vgg"] else "; network: vgg takes them"
        return f"{self.network} needs {least} pixels a side, an image has {side}{instead}"
