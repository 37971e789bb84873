"""A loss and a discriminator for vgx that look at the frequencies of images."""

from typing import Annotated

import vgx
from pydantic import Field, PositiveInt


class FocalFrequency(vgx.Loss, type="focal-frequency"):
    """Squared distance of spectra, the more weighted the larger it is (Jiang et al. 2021).

    mean w |F(recon) - F(real)|^2, F being the orthonormal two-dimensional Fourier transform of each
    channel and w = |F(recon) - F(real)|^alpha, divided by its largest value in that channel; no
    gradient passes through w.
    """

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """How much more the worst frequencies count; with 0 all count the same."""

    def generator(self, step: vgx.Step):
        """Return a scalar >= 0; 0 when the images are the same."""
        import torch

        spectrum = torch.fft.fft2(step.recon - step.real, norm="ortho")  # [B, C, H, W]
        squared = spectrum.real**2 + spectrum.imag**2
        weight = squared.detach() ** (self.alpha / 2)
        return (squared * weight / weight.amax((2, 3), keepdim=True).clamp(min=1e-12)).mean()


class Spectrum(vgx.Discriminator, type="spectrum"):
    """Two linear layers on the mean log power of each ring of frequencies, as in SSD-GAN.

    The reduced spectrum of Durall et al. 2020, which Chen et al. 2021 give to a discriminator: it
    contains how sharp and how regular an image is, but hardly what the image shows.
    """

    width: PositiveInt = 64
    """Number of hidden values."""

    def build(self, image: vgx.ImageSpec):
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        from vgx_spectra.networks import SpectrumNetwork

        return SpectrumNetwork(image.channels, image.size, self.width)


@vgx.hookimpl
def register_components(register):
    register(FocalFrequency)
    register(Spectrum)
