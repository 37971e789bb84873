"""The encoder of diffusers' `AutoencoderKL`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class AutoencoderKLEncoder(vgx.Encoder, type="autoencoder-kl"):
    """The encoder of latent diffusion's KL autoencoder, as diffusers builds `AutoencoderKL`.

    A 3x3 convolution, `blocks` residual blocks for each width, all but the last followed by a
    halving, then two blocks around self-attention (Rombach et al. 2022, section 3.1 and E). With
    the decoder of the same type, `vgx export` writes a folder that diffusers opens, and `vgx
    import` reads one. The latent is [channels, height, width] of the last resolution.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    """Channels at each resolution; n widths halve the image n - 1 times."""
    blocks: PositiveInt = 2
    """Residual blocks for each width."""
    groups: PositiveInt = 32
    """Groups of each GroupNorm; it must divide every width."""
    attention: bool = True
    """Self-attention at the last resolution."""
    quant_conv: bool = True
    """A 1x1 convolution of mean and logvar at the end."""
    recompute: bool = False
    """Compute the activations of each block again for the gradient instead of keeping them
    (activation checkpointing): less memory, and more time."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> Gaussian over [B, *Z]."""
        from vgx_builtin.autoencoder_blocks import recompute_blocks
        from vgx_builtin.autoencoder_kl import Encoder, KLEncoder, require_fit

        require_fit("encoder autoencoder-kl", self.widths, self.groups, image, latent)
        channels = latent.shape[0]
        encoder = Encoder(
            image.channels, channels, self.widths, self.blocks, self.groups,
            attention=self.attention,
        )  # fmt: skip
        network = KLEncoder(encoder, channels, quant_conv=self.quant_conv)
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
            "widths": known.block_out_channels,
            "blocks": known.layers_per_block,
            "groups": known.norm_num_groups,
            "attention": known.mid_block_add_attention,
            "quant_conv": known.use_quant_conv,
        }

    def config(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> dict[str, Any]:
        """Return what `config.json` says of this encoder. See `vgx.Published`."""
        from vgx_builtin.autoencoder_config import DOWN, KL

        return {
            "_class_name": KL,
            "act_fn": "silu",
            "block_out_channels": [*self.widths],
            "down_block_types": [DOWN] * len(self.widths),
            "force_upcast": True,
            "in_channels": image.channels,
            "latent_channels": latent.shape[0],
            "latents_mean": None,
            "latents_std": None,
            "layers_per_block": self.blocks,
            "mid_block_add_attention": self.attention,
            "norm_num_groups": self.groups,
            "sample_size": image.size if isinstance(image.size, int) else [*image.size],
            "scaling_factor": 1.0,
            "shift_factor": None,
            "use_quant_conv": self.quant_conv,
        }

    def halvings(self) -> int:
        """Return how often it halves the images."""
        return len(self.widths) - 1
