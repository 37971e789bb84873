"""An encoder with several codebooks, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class ResidualQuantised(vgx.Encoder, type="residual-quantised"):
    """Another encoder's means, replaced by sums of vectors of several codebooks.

    The first codebook quantises the mean e, each further one what is left of it: k_d is the number
    of the vector of codebook d that is nearest to e - c_1 - ... - c_{d-1}, and z is the sum of all
    c_d (Zeghidour et al. 2021, algorithm 1). So `levels` codebooks of `codes` vectors stand for
    codes ** levels latents. The gradient with respect to z goes straight through to e. Vectors are
    moving averages, which k-means starts and which are restarted when they are used too little, as
    those of `vector-quantised` with `decay`. Each level has a codebook of its own; in Lee et al.
    2022 they share one. The loss `vq` keeps the encoder near the sums.
    """

    inner: vgx.Encoder
    """The encoder whose mean is quantised."""
    codes: Annotated[int, Field(ge=2)] = 512
    """Number of vectors in each codebook."""
    levels: PositiveInt = 4
    """Number of codebooks."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving averages."""
    restart: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Restart a vector that fewer than this share of the places of a minibatch over the number of
    vectors come to on average; 0: never."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with `encoded`, `codes` [B, *Z]."""
        from vgx_builtin.quantisers.codebooks import MovingCodebook, ResidualCodebooks
        from vgx_builtin.quantisers.encoder import QuantisedEncoder
        from vgx_builtin.wrapping import mean_of

        inner, size = mean_of(self.type, self.inner, image, latent), (self.codes, latent.shape[0])
        books = [MovingCodebook(*size, self.decay, self.restart) for _ in range(self.levels)]
        return QuantisedEncoder(inner, ResidualCodebooks(books))
