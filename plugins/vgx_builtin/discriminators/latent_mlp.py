"""A discriminator of latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class LatentMlp(vgx.Discriminator, type="latent-mlp"):
    """Linear layers that tell draws from N(0, I) from the encoder's latents (Makhzani et al. 2016).

    Two hidden layers, as in the paper's adversarial autoencoder, with 512 units instead of 1000 and
    LeakyReLU instead of ReLU. A spatial latent is flattened.
    """

    judges: ClassVar = "latents"

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 512)
    """Units of each hidden layer."""
    spectral: bool = False
    """Spectral norm of every layer (Miyato et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> Score with logits [B, 1]."""
        del image
        from vgx_builtin.critics import LatentDiscriminator
        from vgx_builtin.modules import spectrally_normed

        network = LatentDiscriminator(latent.size, self.widths)
        return spectrally_normed(network) if self.spectral else network
