"""Reconstructions compared with their images, by pixels or by windows of pixels.

torchmetrics computes a value for each image; a metric is the mean over all images.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

import vgx
from vgx_builtin.losses.similarity import EXPONENTS, SIDES, WINDOW

if TYPE_CHECKING:
    from torch import Tensor

MAX_PSNR = 100.0  # dB: a mean squared error of 1e-10, a thousandth of what rounding to bytes makes


class Difference(vgx.Metric, type="l1"):
    """Mean absolute difference of reconstruction and image, over pixel values; 0 to 1."""

    pairs: ClassVar[bool] = True

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import Mean

        del image
        return Mean(self.type, lambda real, fake: (fake - real).abs().mean((1, 2, 3)))


class Psnr(vgx.Metric, type="psnr"):
    """Peak signal-to-noise ratio in decibels: -10 log10 of an image's mean squared error.

    The peak is 1, and the mean over images is taken in decibels. An image without error counts as
    100 dB.
    """

    pairs: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from torchmetrics.functional.image import peak_signal_noise_ratio

        from vgx_builtin.metrics.states import Mean

        del image
        ratio: Any = partial(
            peak_signal_noise_ratio, data_range=1.0, reduction="none", dim=(1, 2, 3)
        )
        return Mean(self.type, lambda real, fake: ratio(fake, real).clamp(max=MAX_PSNR))


class Ssim(vgx.Metric, type="ssim"):
    """Structural similarity of image and reconstruction (Wang et al. 2004, eq. 13); -1 to 1.

    SSIM = (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)) in Gaussian
    windows of 11 pixels with sigma 1.5, c1 = 0.01^2 and c2 = 0.03^2; mean over channels and over
    the windows that lie in the image, as in the paper's program and in scikit-image.
    """

    pairs: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from vgx_builtin.metrics.states import Mean

        del image
        return Mean(self.type, _ssim)

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why images are too small."""
        del real, generated
        side = min(image.height, image.width)
        if side >= WINDOW:
            return ""
        return f"a window has {WINDOW} pixels a side, an image {side}"


class MsSsim(vgx.Metric, type="ms-ssim"):
    """Structural similarity at several scales (Wang et al. 2003, eq. 7); 0 to 1.

    The product of the contrast and structure of each scale and the SSIM of the coarsest, each to
    its exponent; a scale is half as wide as the one before. A negative factor counts as 0.
    torchmetrics computes it: of contrast and structure the windows in the image count, of the
    coarsest scale also those over its border, where the image is mirrored.
    """

    pairs: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    scales: Annotated[int, Field(ge=1, le=5)] = 3
    """Number of the paper's five scales, the finest first; exponents are scaled to sum to 1. They
    need images of 11, 22, 44, 99 and 176 pixels a side."""

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from torchmetrics.functional.image import (
            multiscale_structural_similarity_index_measure as similarity,
        )

        from vgx_builtin.metrics.states import Mean

        del image
        chosen = EXPONENTS[: self.scales]
        betas = tuple(exponent / sum(chosen) for exponent in chosen)
        measure: Any = partial(
            similarity, data_range=1.0, betas=betas, normalize="relu", reduction="none"
        )
        return Mean(
            self.type, lambda real, fake: measure(fake.double(), real.double()).reshape(len(real))
        )

    def why_not(self, image: vgx.ImageSpec, real: int, generated: int) -> str:
        """Return why images are too small."""
        del real, generated
        side = min(image.height, image.width)
        if side >= SIDES[self.scales]:
            return ""
        needed = f"scales: {self.scales} needs {SIDES[self.scales]} pixels a side"
        return f"{needed}, an image has {side}"


def _ssim(real: Tensor, fake: Tensor) -> Tensor:
    """[B]  The similarity of each image with its reconstruction."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    measure: Any = structural_similarity_index_measure
    # A variance is a difference of large numbers: a GPU's convolutions would be too coarse for it.
    real, fake = real.double(), fake.double()
    _, windows = measure(fake, real, data_range=1.0, reduction="none", return_full_image=True)
    reach = WINDOW // 2  # of a window around its pixel; those nearer to the border leave the image
    inner: Tensor = windows[:, :, reach:-reach, reach:-reach]  # [B, C, H - 10, W - 10]
    return inner.flatten(1).mean(1)
