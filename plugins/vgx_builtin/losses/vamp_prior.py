"""The divergence from a prior that is learned with the autoencoder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt

import vgx


class VampPrior(vgx.Loss, type="vamp-prior"):
    """Divergence of the posterior from a mixture of posteriors (Tomczak and Welling 2018).

    log q(z | x) - log 1/K sum_k q(z | u_k) at the posterior sample z, mean over the batch. The K
    images u_k, the pseudo-inputs, are learned (eq. 9). They start as grey with noise, and are cut
    to [0, 1]. It takes the place of `kl`, and the posterior must be a Gaussian. The sampler
    `vamp-prior` draws from this mixture. If the encoder takes labels, u_k has label k modulo their
    number.

    An encoder with BatchNorm sees the pseudo-inputs as a minibatch of their own, and its
    statistics become those of images and pseudo-inputs together; take one without, such as
    `residual` with `norm: group`.
    """

    components: PositiveInt = 100
    """K, the number of pseudo-inputs; all are encoded in each step."""
    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each image; as in `kl`."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module with the pseudo-inputs."""
        del latent
        from vgx_builtin.losses.vamp_prior_term import VampPriorTerm

        return VampPriorTerm(self.components, image, self.unit)
