"""BEGAN for vgx: a GAN whose discriminator is an autoencoder (Berthelot et al. 2017).

"BEGAN: Boundary Equilibrium Generative Adversarial Networks", arXiv:1703.10717.
"""

from typing import Annotated

import vgx
from pydantic import Field, PositiveFloat, PositiveInt


class BeganDecoder(vgx.Decoder, type="began"):
    """The generator of BEGAN: convolutions with ELU and nearest upsampling (section 3.3).

    One linear layer gives `width` channels of about 8 x 8; before each doubling, and at the end,
    there are two convolutions of 3 x 3.
    """

    width: PositiveInt = 64
    """Channels of each layer, n in the paper."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec):
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from vgx_began.networks import Decoder

        return Decoder(latent.size, self.width, image)


class BeganDiscriminator(vgx.Discriminator, type="began"):
    """An autoencoder that scores an image by how well it reconstructs it (section 3.1).

    With v(x) = 2x - 1, the pixel values in [-1, 1], the logit is minus the mean over the pixel
    values of |v(x) - v(D(x))|. The decoder is that of the decoder `began`, without a sigmoid; the
    encoder has `width`, 2 `width`, 3 `width`, ... channels, and convolutions of stride 2 between.
    """

    width: PositiveInt = 64
    """Channels of the first layer, n in the paper."""
    hidden: PositiveInt = 64
    """Length of the code, N_h in the paper."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec):
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1]."""
        from vgx_began.networks import Autoencoder

        return Autoencoder(image, self.width, self.hidden)


class Began(vgx.Loss, type="began"):
    """The boundary equilibrium of generator and discriminator (section 3.4).

    With e(x) = -D(x), the reconstruction error that the discriminator `began` scores:
    Generator: mean e(fake).
    Discriminator: mean e(real) - k mean e(fake).
    After it, k becomes k + rate (diversity mean e(real) - mean e(fake)), clamped to [0, 1]. It
    begins at 0 and is saved with the run.
    """

    diversity: Annotated[float, Field(gt=0, le=1)] = 0.5
    """mean e(fake) / mean e(real) that k steers to, gamma in the paper. Lower values give cleaner
    and less diverse images."""
    rate: PositiveFloat = 0.001
    """How fast k moves, lambda_k in the paper."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec):
        """Make a module with the terms of both players and the buffer `k`."""
        from vgx_began.networks import Equilibrium

        return Equilibrium(self.diversity, self.rate)


@vgx.hookimpl
def register_components(register):
    register(BeganDecoder)
    register(BeganDiscriminator)
    register(Began)
