"""Features of an untrained network, which needs no download and is always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import nn


class RandomConv(vgx.Features, type="random-conv"):
    """A convolutional network with fixed random weights, which needs no download.

    Four convolutions of stride 2 with ReLU, to 32, 64, 128 and 256 channels, weights from
    N(0, 2 / fan-in) (He et al. 2015); the features are every channel's mean over the image, 480
    numbers. Random networks distinguish sets of images where no trained one fits (Naeem et al.
    2020), but their values compare only with those of the same network.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Chooses the weights: another seed is another network, with other values."""

    def build(self, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: images [N, C, H, W] -> features [N, 480]."""
        from vgx_builtin.features.networks import RandomNetwork

        return RandomNetwork(image.channels, self.seed)

    def title(self) -> str:
        """Return the type, and the seed unless it is 0: another seed is another network."""
        return f"{self.type} {self.seed}" if self.seed else self.type

    def note(self, image: vgx.ImageSpec) -> str:
        """Return a warning that the network is not trained."""
        del image
        return "random-conv is an untrained network: its values compare only with each other."
