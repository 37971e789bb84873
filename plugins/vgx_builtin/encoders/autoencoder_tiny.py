"""The encoder of diffusers' `AutoencoderTiny`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderTinyEncoder(vgx.Encoder, type="autoencoder-tiny"):
    """The encoder of TAESD, as diffusers builds it in `AutoencoderTiny`.

    A 3x3 convolution, then residual blocks at each resolution, all but the first of which begin
    with a convolution of stride 2 (Bohan, github.com/madebyollin/taesd). The latent has no
    variance, so `kl` is no loss for it. With the decoder of the same type, `vgx export` writes a
    folder that diffusers opens, and `vgx import` reads one. The latent is [channels, height,
    width] of the last resolution.
    """

    channels: PositiveInt = 64
    """Channels at every resolution."""
    blocks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (1, 3, 3, 3)
    """Residual blocks at each resolution; n numbers halve the image n - 1 times."""
    recompute: bool = False
    """Compute the activations of each block again for the gradient instead of keeping them
    (activation checkpointing): less memory, and more time."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a point [B, *Z]."""
        from vgx_builtin.autoencoder_blocks import recompute_blocks
        from vgx_builtin.autoencoder_ends import require_latent
        from vgx_builtin.autoencoder_tiny import TinyEncoder

        require_latent("encoder autoencoder-tiny", self.halvings(), image, latent)
        network = TinyEncoder(image.channels, latent.shape[0], self.channels, self.blocks)
        if self.recompute:
            recompute_blocks(network)
        return network

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the fields for an `AutoencoderTiny`. See `vgx.Published`."""
        from vgx_builtin import autoencoder_config

        if (known := autoencoder_config.tiny(config)) is None:
            return None
        return {"channels": known.encoder_block_out_channels[0], "blocks": known.num_encoder_blocks}

    def config(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> dict[str, Any]:
        """Return what `config.json` says of this encoder. See `vgx.Published`."""
        from vgx_builtin.autoencoder_config import TINY

        return {
            "_class_name": TINY,
            "act_fn": "relu",
            "encoder_block_out_channels": [self.channels] * len(self.blocks),
            "force_upcast": False,
            "in_channels": image.channels,
            "latent_channels": latent.shape[0],
            "latent_magnitude": 3,
            "latent_shift": 0.5,
            "num_encoder_blocks": list(self.blocks),
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
            "upsample_fn": "nearest",
            "upsampling_scaling_factor": 2,
        }

    def halvings(self) -> int:
        """Return how often it halves the images."""
        return len(self.blocks) - 1
