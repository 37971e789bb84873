"""Truncation in w, of decoders with a mapping network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt

import vgx
from vgx_builtin.samplers.prior import Normal

if TYPE_CHECKING:
    from torch import Tensor


class StyleTruncation(vgx.Sampler, type="style-truncation"):
    """Draw latents from N(0, I), and move what they are mapped to towards its mean.

    w' = m + psi (w - m), with m the mean of w over the training (Karras et al. 2019, appendix B).
    A small psi trades variety for quality: 1 changes nothing, and with 0 all images are the mean
    one. It needs a decoder with a mapping network, such as `style`.
    """

    psi: float = 0.7
    """How far from the mean w is, as a share; below 0 it lies on the other side of the mean."""
    cutoff: PositiveInt | None = None
    """The layers that are truncated, from the first, when w has some: the first ones decide on
    large forms, the last ones on colours. `null`: all."""

    @property
    def least_codes(self) -> int:
        """0: it draws without the run's latents."""
        return 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z], and decodes by itself."""
        return _Truncated(self.psi, self.cutoff, latent)


class _Truncated(Normal):
    def __init__(self, psi: float, cutoff: int | None, latent: vgx.LatentSpec) -> None:
        super().__init__(latent)
        self.psi, self.cutoff = psi, cutoff

    def use(self, model: vgx.Model) -> None:
        """Take the decoder. Raises `RecipeError` for one without a mapping network."""
        decoder = model.decoder
        if not isinstance(decoder, vgx.Mapped):
            text = f"the decoder {model.recipe.decoder.type} has no mapping network"
            instead = "write 'sampler: prior', or train a decoder that has one, as 'style'"
            raise vgx.RecipeError(f"sampler style-truncation: {text}; {instead}")
        mean = getattr(decoder, "w_mean", None)
        if mean is None:
            text = f"the module of the decoder {model.recipe.decoder.type} has no buffer `w_mean`"
            raise vgx.RecipeError(f"sampler style-truncation: {text}; write 'sampler: prior'")
        self.decoder: vgx.Mapped = decoder
        self.mean: Tensor = mean

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """[n, C, H, W]  The images in [0, 1] of latents [n, *Z], truncated."""
        import torch

        decoder = self.decoder
        w = decoder.map(z) if labels is None else decoder.map(z, labels)  # [n, *W]
        truncated = self.mean + self.psi * (w - self.mean)
        if self.cutoff is not None:
            if w.dim() < 3:
                text = "cutoff: the decoder's w has no layers; leave it out"
                raise vgx.RecipeError(f"sampler style-truncation: {text}")
            truncated = torch.cat([truncated[:, : self.cutoff], w[:, self.cutoff :]], 1)
        return decoder.decode_mapped(truncated).sigmoid()
