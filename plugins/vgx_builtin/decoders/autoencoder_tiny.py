"""The decoder of diffusers' `AutoencoderTiny`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderTinyDecoder(vgx.Decoder, type="autoencoder-tiny"):
    """The decoder of TAESD, as diffusers builds it in `AutoencoderTiny`.

    Latents are bounded by 3 tanh(z / 3). A 3x3 convolution with ReLU, then residual blocks at each
    resolution, all but the last of which end with a doubling and a convolution (Bohan,
    github.com/madebyollin/taesd). The images are the output of the last convolution, cut off at 0
    and 1; so `bce`, whose gradient is without bound there, is no loss for it. The latent is
    [channels, height, width] of the first resolution.
    """

    channels: PositiveInt = 64
    """Channels at every resolution."""
    blocks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (3, 3, 3, 1)
    """Residual blocks at each resolution; n numbers double the latent n - 1 times."""
    recompute: bool = False
    """Compute the activations of each block again for the gradient instead of keeping them
    (activation checkpointing): less memory, and more time."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from vgx_builtin.autoencoder_blocks import recompute_blocks
        from vgx_builtin.autoencoder_ends import require_latent
        from vgx_builtin.autoencoder_tiny import TinyDecoder

        require_latent("decoder autoencoder-tiny", self.halvings(), image, latent)
        network = TinyDecoder(image.channels, latent.shape[0], self.channels, self.blocks)
        if self.recompute:
            recompute_blocks(network)
        return network

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the fields for an `AutoencoderTiny`. See `vgx.Published`."""
        from vgx_builtin import autoencoder_config

        if (known := autoencoder_config.tiny(config)) is None:
            return None
        return {"channels": known.decoder_block_out_channels[0], "blocks": known.num_decoder_blocks}

    def config(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> dict[str, Any]:
        """Return what `config.json` says of this decoder. See `vgx.Published`."""
        from vgx_builtin.autoencoder_config import TINY

        return {
            "_class_name": TINY,
            "out_channels": image.channels,
            "latent_channels": latent.shape[0],
            "decoder_block_out_channels": [self.channels] * len(self.blocks),
            "block_out_channels": [self.channels] * len(self.blocks),
            "num_decoder_blocks": list(self.blocks),
        }

    def halvings(self) -> int:
        """Return how often it doubles the latents."""
        return len(self.blocks) - 1
