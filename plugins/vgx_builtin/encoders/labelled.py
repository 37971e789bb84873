"""An encoder that takes labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class LabelledEncoder(vgx.Encoder, type="labelled"):
    """Another encoder that also takes a learned vector for the label: q(z | x, y).

    As in a conditional VAE (Sohn et al. 2015). The vector is appended to the channels of the image,
    the same at every place; the inner encoder is built for an image with these channels.
    """

    conditional: ClassVar[bool] = True

    inner: vgx.Encoder
    """The encoder of image and label."""
    embedding: PositiveInt = 8
    """The length of the vector."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W], labels [B] -> the inner encoder's posterior."""
        from vgx_builtin.conditioning import ConditionalEncoder, classes
        from vgx_builtin.wrapping import unconditional

        unconditional("encoder labelled", self.inner)
        count = classes("encoder labelled", image)
        larger = replace(image, channels=image.channels + self.embedding)
        return ConditionalEncoder(self.inner.build(larger, latent), count, self.embedding)
