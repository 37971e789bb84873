"""A transformer over the indices of a codebook.

Letters: B images, T places and levels of one image, K values of an index, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

import vgx

if TYPE_CHECKING:
    from torch import nn


class Transformer(vgx.Prior, type="transformer"):
    """A small decoder-only transformer over indices in raster order (Esser et al. 2021).

    p(s) = prod_i p(s_i | s_1, ..., s_{i-1}, label), the loss is -log p(s) / T in nats: the second
    stage of VQGAN (section 3.2), and what PixelCNN is for VQ-VAE (van den Oord et al. 2017). The
    levels of a place follow each other. The sequence begins with a learned vector, one for each
    label; positions are learned; layers normalise first, and their activation is GELU (GPT-2).
    """

    of: ClassVar[Literal["latents", "indices"]] = "indices"
    conditional: ClassVar[bool] = True

    width: PositiveInt = 128
    """Number of features of each index; the heads must divide it."""
    depth: PositiveInt = 4
    """Number of layers."""
    heads: PositiveInt = 4
    """Number of attention heads."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of features that are dropped while it is trained."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            message = "heads: {heads} does not divide width: {width}"
            numbers = {"heads": self.heads, "width": self.width}
            raise PydanticCustomError("heads", message, numbers)
        return self

    def build(self, latent: vgx.LatentSpec, codes: vgx.CodeSpec) -> nn.Module:
        """Make a module with `loss(indices, labels, generator)` and `draw(n, labels, generator)`.

        `draw` also takes `temperature`, by which logits are divided, and `top_k`: an index is drawn
        from so many of the likeliest alone.
        """
        del latent
        from vgx_builtin.priors.transformer_network import SequenceModel

        return SequenceModel(
            codes.shape, codes.codes, codes.classes, self.width, self.depth, self.heads,
            self.dropout,
        )  # fmt: skip
