"""The decoder of diffusers' `AutoencoderKL`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderKLDecoder(vgx.Decoder, type="autoencoder-kl"):
    """The decoder of latent diffusion's KL autoencoder, as diffusers builds `AutoencoderKL`.

    Two residual blocks around self-attention, then `blocks` + 1 residual blocks for each width, all
    but the last followed by a doubling (Rombach et al. 2022, section 3.1 and E). The images are
    (y + 1) / 2, cut off at 0 and 1, where y is the output of the last convolution; so `bce`, whose
    gradient is without bound there, is no loss for it. The latent is [channels, height, width] of
    the first resolution.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128, 64)
    """Channels at each resolution; n widths double the latent n - 1 times."""
    blocks: PositiveInt = 2
    """Residual blocks for each width, less one."""
    groups: PositiveInt = 32
    """Groups of each GroupNorm; it must divide every width."""
    attention: bool = True
    """Self-attention at the first resolution."""
    quant_conv: bool = True
    """A 1x1 convolution of the latents at the beginning."""
    recompute: bool = False
    """Compute the activations of each block again for the gradient instead of keeping them
    (activation checkpointing): less memory, and more time."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]."""
        from vgx_builtin.autoencoder_blocks import recompute_blocks
        from vgx_builtin.autoencoder_kl import Decoder, KLDecoder, require_fit

        require_fit("decoder autoencoder-kl", self.widths, self.groups, image, latent)
        channels = latent.shape[0]
        decoder = Decoder(
            image.channels, channels, self.widths, self.blocks, self.groups,
            attention=self.attention,
        )  # fmt: skip
        network = KLDecoder(decoder, channels, quant_conv=self.quant_conv)
        if self.recompute:
            recompute_blocks(network)
        return network

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the fields for an `AutoencoderKL`. See `vgx.Published`."""
        from vgx_builtin import autoencoder_config

        if (known := autoencoder_config.kl(config)) is None:
            return None
        return {
            "widths": known.block_out_channels[::-1],
            "blocks": known.layers_per_block,
            "groups": known.norm_num_groups,
            "attention": known.mid_block_add_attention,
            "quant_conv": known.use_post_quant_conv,
        }

    def config(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> dict[str, Any]:
        """Return what `config.json` says of this decoder. See `vgx.Published`."""
        from vgx_builtin.autoencoder_config import KL, UP

        return {
            "_class_name": KL,
            "act_fn": "silu",
            "block_out_channels": [*self.widths[::-1]],
            "up_block_types": [UP] * len(self.widths),
            "force_upcast": True,
            "out_channels": image.channels,
            "latent_channels": latent.shape[0],
            "layers_per_block": self.blocks,
            "mid_block_add_attention": self.attention,
            "norm_num_groups": self.groups,
            "use_post_quant_conv": self.quant_conv,
        }

    def halvings(self) -> int:
        """Return how often it doubles the latents."""
        return len(self.widths) - 1
