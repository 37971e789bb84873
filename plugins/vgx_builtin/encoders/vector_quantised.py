"""An encoder with a codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class VectorQuantised(vgx.Encoder, type="vector-quantised"):
    """Another encoder's means, replaced by a codebook's nearest vectors (van den Oord et al. 2017).

    At each place of a spatial latent the channels of the mean e are one vector, and a flat latent
    is one vector: z = c_k, k = argmin_j |e - c_j| (eq. 1 and 2). The gradient with respect to z
    goes straight through to e. Weights that the mean does not depend on, those of logvar, are
    frozen.

    Without `decay` the codebook learns from the loss `vq` only; a vector that is the nearest of no
    place gets no gradient. With it each vector is the moving average of the means that it was the
    nearest of (appendix A.1): N = decay N + (1 - decay) n, m = decay m + (1 - decay) sum e and c =
    m / N, for the n means of a minibatch. The first minibatch starts them by k-means (Zeghidour et
    al. 2021, section 3.3), and `restart` puts a vector that is used too little on a random mean of
    the minibatch (Dhariwal et al. 2020, section 2.2, whose threshold is in places). There is no
    smoothing of N: m / N of a vector that nothing came to stays as it is.
    """

    inner: vgx.Encoder
    """The encoder whose mean is quantised."""
    codes: Annotated[int, Field(ge=2)] = 512
    """Number of vectors in the codebook; they start uniform in [-1 / codes, 1 / codes],
    `normalised` ones from N(0, I), those with `decay` by k-means."""
    normalised: bool = False
    """Scale means and vectors to length 1, so that the nearest is the one of the nearest direction;
    with few channels far more of the codebook is used (Yu et al. 2022, section 3.2)."""
    decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Decay of the moving averages, 0.99 in the paper; `null`: the loss `vq` moves the codebook."""
    restart: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """With `decay`, restart a vector whose N is below this share of the places of a minibatch over
    the number of vectors; 0: never."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> a posterior with `encoded`, `codes` [B, *Z]."""
        from vgx_builtin.quantisers.codebooks import Codebook, MovingCodebook
        from vgx_builtin.quantisers.encoder import QuantisedEncoder
        from vgx_builtin.wrapping import mean_of

        inner, size = mean_of(self.type, self.inner, image, latent), (self.codes, latent.shape[0])
        if self.decay is None:
            return QuantisedEncoder(inner, Codebook(*size, normalised=self.normalised))
        book = MovingCodebook(*size, self.decay, self.restart, normalised=self.normalised)
        return QuantisedEncoder(inner, book)
