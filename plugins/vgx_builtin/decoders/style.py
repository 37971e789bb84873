"""The generator of StyleGAN2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class StyleDecoder(vgx.Decoder, type="style"):
    """The generator of StyleGAN2: a mapping network, and convolutions modulated by its styles.

    Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". The latent, scaled
    to a mean square of 1, becomes a style w by `mapping` linear layers at 0.01 of the learning
    rate. A learned first map is doubled until it is the image: each convolution's weights are
    multiplied by the style and demodulated (eqs. 1 and 3), noise of a learned strength is added,
    and at each resolution colours are added to those of the resolution before (skip generator,
    figure 7b). Resampling is blurred by [1, 3, 3, 1], and learning rates are equalised.

    In training each image draws its own noise, and with style mixing the later layers get the style
    of another latent; evaluation has one constant noise. The mean of w, for truncation, is a moving
    average over the training. Changed from the paper: it gives logits in place of colours, and each
    image has its own place where styles are mixed. The latent is flat.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 512, 512, 512, 256)
    """Channels at each resolution; n widths double the first map n - 1 times. The default is the
    paper's for 64 pixels, which begin at 4, with half of its largest networks' widths."""
    styles: PositiveInt = 512
    """Numbers of a style."""
    mapping: PositiveInt = 8
    """Layers of the mapping network."""
    noise: bool = True
    """Noise of a learned strength after each convolution, for detail that is random in the
    images. Without it one latent is always one image, also in training."""
    mixing: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The probability that an image mixes two styles in training. Choose 0 beside an encoder: the
    other style has nothing of the image."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """The decay of the mean of w in each pass; it begins as a plain mean."""

    def build(self, latent: vgx.LatentSpec, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: z [B, Z] -> logits [B, C, H, W]. It is `vgx.Mapped`, with w [B, L, S]."""
        from vgx_builtin.decoders.style_network import StyleNetwork
        from vgx_builtin.modules import flat_size, smallest_sides

        return StyleNetwork(
            flat_size("decoder style", latent),
            image.channels,
            smallest_sides("decoder style", image, len(self.widths) - 1),
            self.widths,
            styles=self.styles,
            mapping=self.mapping,
            noise=self.noise,
            mixing=self.mixing,
            decay=self.decay,
        )
