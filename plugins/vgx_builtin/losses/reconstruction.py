"""Reconstruction losses: the distance of an image and its reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class L1(vgx.Loss, type="l1"):
    """Mean absolute error between reconstruction and image: mean |recon - real|.

    The mean is over batch, channels and pixels; images are in [0, 1], so the value is too.
    """

    pixelwise: ClassVar[bool] = True

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 1]."""
        from torch.nn import functional as F

        return F.l1_loss(step.recon, step.real)


class L2(vgx.Loss, type="l2"):
    """Mean squared error between reconstruction and image: mean (recon - real)^2.

    The mean is over batch, channels and pixels; images are in [0, 1], so the value is too.
    """

    pixelwise: ClassVar[bool] = True

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 1]."""
        from torch.nn import functional as F

        return F.mse_loss(step.recon, step.real)


class Charbonnier(vgx.Loss, type="charbonnier"):
    """A smooth absolute error: mean sqrt((recon - real)^2 + eps^2) (Charbonnier et al. 1994).

    It is squared near 0 and absolute far from it, and at least eps. As a loss on images: Lai et al.
    2017. The mean is over batch, channels and pixels.
    """

    pixelwise: ClassVar[bool] = True

    eps: PositiveFloat = 1e-3
    """Where the squared form becomes the absolute one, in pixel values of [0, 1]."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= eps."""
        difference = step.recon - step.real
        return (difference**2 + self.eps**2).sqrt().mean()


class Bce(vgx.Loss, type="bce"):
    """Binary cross-entropy of each pixel value as a probability (Kingma and Welling 2014).

    -mean[x log p + (1 - x) log(1 - p)] with p = sigmoid(logits), computed from the logits so that
    it stays finite. Its least value is the images' own entropy, not 0.
    """

    pixelwise: ClassVar[bool] = True

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0, in nats for each pixel value."""
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(step.recon_logits, step.real)
