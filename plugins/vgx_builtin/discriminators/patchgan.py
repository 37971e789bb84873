"""The plain convolutional PatchGAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class PatchGan(vgx.Discriminator, type="patchgan"):
    """4x4 convolutions that score overlapping patches (Isola et al. 2017, section 6.1.2).

    C64-C128-C256-C512 by default: all but the last have stride 2, the first has no norm, and a last
    convolution gives the logits. Each logit sees 70x70 pixels. Weights start from N(0, 0.02)
    (section 6.2 of the paper).
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (64, 128, 256, 512)
    """Channels of each convolution; fewer give smaller patches."""
    norm: Literal["batch", "instance", "none"] = "batch"
    """What normalises before each LeakyReLU but the first; gradient penalties need another one than
    `batch`."""
    spectral: bool = False
    """Spectral norm of every convolution (Miyato et al. 2018)."""
    halvings: NonNegativeInt = 0
    """How often the image is halved before, by means of 2x2 pixels: for one of several
    discriminators, which sees coarser things (Wang et al. 2018)."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> Score with logits [B, 1, h, w]."""
        del latent
        from torch import nn

        from vgx_builtin.modules import (
            SLOPE,
            StagedDiscriminator,
            draw_as_dcgan,
            normalisation,
            pixels,
            spectrally_normed,
        )

        # Two convolutions of stride 1 take one pixel each from what the halvings leave.
        halvings = len(self.widths) - 1 + self.halvings
        if min(image.height, image.width) // 2**halvings < 3:
            fewer = "fewer widths or halvings" if self.halvings else "fewer widths"
            raise vgx.RecipeError(
                f"discriminator patchgan: {pixels(image)} leave no patch after {halvings} "
                f"halvings; give {fewer}"
            )
        stages: list[nn.Module] = []
        before: int = image.channels
        for index, width in enumerate(self.widths):
            stride = 1 if index == len(self.widths) - 1 else 2
            # A norm takes the mean away, and a bias with it.
            norm = normalisation(self.norm, width) if stages else []
            conv = nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=not norm)
            stages.append(nn.Sequential(conv, *norm, nn.LeakyReLU(SLOPE)))
            before = width
        head = nn.Conv2d(before, 1, 4, padding=1)
        network = draw_as_dcgan(StagedDiscriminator(stages, head, self.halvings))
        return spectrally_normed(network) if self.spectral else network
