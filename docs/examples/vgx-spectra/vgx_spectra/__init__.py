"""A loss and a discriminator for vgx that use the frequencies of images."""

from typing import Annotated

import vgx
from pydantic import Field, PositiveInt


class FocalFrequency(vgx.Loss, type="focal-frequency"):
    """Squared distance of spectra, with larger weights for larger errors (Jiang et al. 2021).

    mean w |F(recon) - F(real)|^2. F is the orthonormal two-dimensional Fourier transform of each
    channel. The weight w is |F(recon) - F(real)|^alpha, divided by its largest value in that
    channel; no gradient passes through it.
    """

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Exponent of the weights. With 0 all frequencies have the same weight."""

    def generator(self, step: vgx.Step):
        """Return a scalar >= 0; it is 0 when both images are equal."""
        import torch

        spectrum = torch.fft.fft2(step.recon - step.real, norm="ortho")  # [B, C, H, W]
        squared = spectrum.real**2 + spectrum.imag**2
        weight = squared.detach() ** (self.alpha / 2)
        return (squared * weight / weight.amax((2, 3), keepdim=True).clamp(min=1e-12)).mean()


class Spectrum(vgx.Discriminator, type="spectrum"):
    """Two linear layers on the mean log power of each ring of frequencies, as in SSD-GAN.

    Durall et al. 2020 call these values the reduced spectrum, and Chen et al. 2021 give them to a
    discriminator. They show how sharp and how regular an image is, and little of its content.
    """

    width: PositiveInt = 64
    """Number of hidden values."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec):
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        from vgx_spectra.networks import SpectrumNetwork

        return SpectrumNetwork(image, self.width)


@vgx.hookimpl
def register_components(register):
    register(FocalFrequency)
    register(Spectrum)
