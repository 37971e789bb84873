"""Fine structure of reconstructions compared with that of their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 6  # pixels of the smallest image: 2x2 means, of which a Laplacian needs 3x3


class Detail(vgx.Metric, type="detail"):
    """Correlation of the fine structure of image and reconstruction; -1 to 1.

    Both become grey (mean over channels) and half as large (means of 2x2 pixels); the Laplacian of
    a place is the sum of its four neighbours minus four times itself. The metric is Pearson's
    correlation of the two Laplacians over places, mean over images. So a texture of the decoder
    that is not in the image, such as a checkerboard, counts nothing. An image or a reconstruction
    whose Laplacian is the same everywhere counts as 0.
    """

    pairs: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import Mean

        del image
        return Mean(self.type, _correlation)

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why images are too small."""
        del real, generated
        side = min(image.height, image.width)
        return "" if side >= SIDE else f"it needs {SIDE} pixels a side, an image has {side}"


def _correlation(real: Tensor, fake: Tensor) -> Tensor:
    """[B]  The correlation of the Laplacians of each image and its reconstruction."""
    import torch

    maps = torch.stack([_laplacian(real), _laplacian(fake)])  # [2, B, P]
    centred = maps - maps.mean(2, keepdim=True)
    norms = centred.norm(dim=2)  # [2, B]
    constant = (norms <= 1e-6 * maps.shape[2] ** 0.5).any(0)  # but for the rounding of means
    values: Tensor = centred.prod(0).sum(1) / norms.prod(0)
    return values.masked_fill(constant, 0)


def _laplacian(images: Tensor) -> Tensor:
    """[B, P]  The Laplacian of images [B, C, H, W] at the P places inside their 2x2 means."""
    from torch.nn.functional import avg_pool2d

    x = avg_pool2d(images.double().mean(1, keepdim=True), 2)  # [B, 1, h, w]
    middle = x[..., 1:-1, 1:-1]
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * middle).flatten(1)
