"""An encoder whose latents get noise, so that the decoder learns to do with latents nearby."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveFloat

import vgx

if TYPE_CHECKING:
    from torch import nn


class Noisy(vgx.Encoder, type="noisy"):
    """Noise on the latents that another encoder draws, while training.

    Latents are z + sigma * e with e ~ N(0, I) and z a sample of the inner posterior. Its mean, and
    so every reconstruction after the training, has none; losses see the inner posterior without
    noise. With `deterministic` inside it is the autoencoder with Gaussian noise on its codes, of
    constant variance (Ghosh et al. 2020); with a Gaussian inside it is for latents that
    another model will generate with errors (as in Zheng et al. 2025, RAE, where sigma is drawn for
    each image, and here is fixed).
    """

    inner: vgx.Encoder
    """The encoder: one with a Gaussian posterior, or `deterministic`."""
    sigma: PositiveFloat = 0.1
    """The standard deviation of the noise."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with noisy samples [B, *Z]."""
        from vgx_builtin.wrapping import NoisyEncoder, unconditional

        unconditional("encoder noisy", self.inner)
        return NoisyEncoder(self.inner.build(image, latent), self.sigma)
