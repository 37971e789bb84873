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
    windows of 11 pixels with sigma 1.5, c1 = 0.01^2 and c2 = 0.03^2; mean over windows and
    channels. Images are mirrored at their border, and need 11 pixels a side.
    """

    pairs: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def build(self, image: vgx.ImageSpec) -> vgx.MetricState:
        """Return a new, empty state."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        from vgx_builtin.metrics.states import Mean

        if image.size < WINDOW:
            message = f"metric ssim: a window has {WINDOW} pixels a side, an image {image.size}"
            raise vgx.RecipeError(message)
        similarity: Any = structural_similarity_index_measure
        return Mean(self.type, partial(_each, partial(similarity, data_range=1.0)))


class MsSsim(vgx.Metric, type="ms-ssim"):
    """Structural similarity at several scales (Wang et al. 2003, eq. 7); 0 to 1.

    The product of the contrast and structure of each scale and the SSIM of the coarsest, each to
    its exponent; a scale is half as wide as the one before. A negative factor counts as 0.
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

        if image.size < SIDES[self.scales]:
            needed = f"scales: {self.scales} needs {SIDES[self.scales]} pixels a side"
            raise vgx.RecipeError(f"metric ms-ssim: {needed}, an image has {image.size}")
        chosen = EXPONENTS[: self.scales]
        betas = tuple(exponent / sum(chosen) for exponent in chosen)
        measure = partial(similarity, data_range=1.0, betas=betas, normalize="relu")
        return Mean(self.type, partial(_each, measure))


def _each(measure: Any, real: Tensor, fake: Tensor) -> Tensor:
    """[B]  A similarity of each image with its reconstruction."""
    value: Tensor = measure(fake, real, reduction="none")
    return value.reshape(len(real), -1).mean(1)
