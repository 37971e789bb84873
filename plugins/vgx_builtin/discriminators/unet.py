"""A discriminator that judges the image and each of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class Unet(vgx.Discriminator, type="unet"):
    """A U-Net: a logit for the image after its encoder, one for each pixel after its decoder.

    Schoenfeld et al. 2020, "A U-Net Based Discriminator for Generative Adversarial Networks". The
    logits are [B, 1, 2H, W]: in the upper half the image's logit at all H x W places, in the lower
    half the pixels'. So the mean of any loss over the logits is half the sum of the paper's two
    parts (eq. 2 and 4), as in the authors' program. The features are the outputs of all blocks.

    The residual blocks and the global head are those of `residual`, with spectral norm, as in the
    authors' program; it also has self-attention and class labels.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256, 512)
    """Channels after each halving of the encoder; the decoder has the same, the other way round."""
    spectral: bool = True
    """Spectral norm of every convolution and linear layer (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, 2H, W]."""
        del latent
        from vgx_builtin.discriminators.unet_network import UnetDiscriminator
        from vgx_builtin.modules import smallest_sides, spectrally_normed

        smallest_sides("discriminator unet", image, len(self.widths))
        network = UnetDiscriminator(image.channels, self.widths)
        return spectrally_normed(network) if self.spectral else network
