"""Reconstruction losses on structure: windows of pixels are compared, not single pixels.

torchmetrics computes them. A window is Gaussian, 11 pixels wide, with sigma 1.5; images are
mirrored at their border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 11
# Exponents of the scales, finest first (Wang et al. 2003).
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# The smallest side for each number of scales, so that a window fits into the coarsest; for four
# scales torchmetrics requires more than that.
SIDES = {1: 11, 2: 22, 3: 44, 4: 99, 5: 176}


class Ssim(vgx.Loss, type="ssim"):
    """1 - SSIM, the structural similarity of image and reconstruction (Wang et al. 2004, eq. 13).

    SSIM = (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)) in each
    window, with means m, variances and covariance s, c1 = 0.01^2 and c2 = 0.03^2; mean over
    windows, channels and the batch. Images need 11 pixels a side.
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 2]; 0 when the images are the same."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        side = min(step.real.shape[2:])
        if side < WINDOW:
            text = f"images of {side} pixels are smaller than a window of {WINDOW}"
            raise vgx.RecipeError(f"{text}; leave it out, or make images larger")
        recon: Any = step.recon
        value: Any = structural_similarity_index_measure(recon, step.real, data_range=1.0)
        distance: Tensor = 1 - value
        return distance


class MsSsim(vgx.Loss, type="ms-ssim"):
    """1 - MS-SSIM, the structural similarity at several scales (Wang et al. 2003, eq. 7).

    MS-SSIM is the product of the contrast and structure of each scale and the SSIM of the coarsest,
    each to its exponent; a scale is half as wide as the one before. Each factor v enters as
    (1 + v) / 2, and the loss is twice 1 minus this product: a negative factor has no power, and a
    factor clamped to 0 gives the product no gradient. For similar images this is 1 - MS-SSIM, with
    the same gradient; images that have nothing in common have a loss of about 1 in both forms.
    """

    scales: Annotated[int, Field(ge=1, le=5)] = 3
    """Number of the paper's five scales, the finest first; exponents are scaled to sum to 1. They
    need images of 11, 22, 44, 99 and 176 pixels a side."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 2]; 0 when the images are the same."""
        from torchmetrics.functional.image import (
            multiscale_structural_similarity_index_measure as similarity,
        )

        side = min(step.real.shape[2:])
        if side < SIDES[self.scales]:
            fitting = [scales for scales, least in SIDES.items() if least <= side]
            instead = f"scales: {fitting[-1]} fits" if fitting else "not even one scale fits"
            needed = f"needs images of {SIDES[self.scales]} pixels, not {side}"
            raise vgx.RecipeError(f"scales: {self.scales}: {needed}; {instead}")
        chosen = EXPONENTS[: self.scales]
        recon: Any = step.recon
        value = similarity(
            recon,
            step.real,
            data_range=1.0,
            betas=tuple(exponent / sum(chosen) for exponent in chosen),
            normalize="simple",
        )
        return 2 * (1 - value)
