"""The likelihood of a Gaussian whose variance is not fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = -6.0  # of log sigma, as in the authors' program


class SigmaVae(vgx.Loss, type="sigma-vae"):
    """Negative log-likelihood of a Gaussian with one variance for all pixels (Rybkin et al. 2021).

    The mean of (recon - real)^2 / (2 sigma^2) + log sigma + 1/2 log(2 pi), over batch, channels and
    pixels, in nats for each pixel value. `fitted`: sigma^2 is the mean squared error of the
    minibatch, where the likelihood is largest. `learned`: log sigma is a weight that begins at 0.
    Beside a `kl` of weight 1 it makes the sigma-VAE, which needs no weight chosen by hand.

    As in the authors' program, log sigma is -6 + softplus(log sigma + 6): it stays above -6.
    """

    pixelwise: ClassVar[bool] = True

    variance: Literal["fitted", "learned"] = "fitted"
    """`fitted`: the variance that fits the minibatch best; `learned`: a weight of the loss, which
    is trained with the networks."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module with the learned variance; the fitted one needs none."""
        del image, latent
        if self.variance == "fitted":
            return self
        from vgx_builtin.losses.modules import LearnedVariance

        return LearnedVariance()

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign, at least -5.1."""
        squares = vgx.mean_over_processes((step.recon - step.real).square().mean())
        # Above 0, so that the logarithm and its derivative are finite.
        return gaussian_nats(squares, squares.clamp(min=1e-20).log() / 2)


def gaussian_nats(squares: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the negative log-likelihood of a pixel value, from the mean of squared errors."""
    import math

    from torch.nn import functional as F

    log_sigma = FLOOR + F.softplus(log_sigma - FLOOR)
    return squares * (-2 * log_sigma).exp() / 2 + log_sigma + math.log(2 * math.pi) / 2
