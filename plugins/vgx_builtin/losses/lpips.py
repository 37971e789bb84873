"""The perceptual distance with learned factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import vgx


class LpipsLoss(vgx.Loss, type="lpips"):
    """LPIPS of image and reconstruction, version 0.1, with its learned factors (Zhang et al. 2018).

    sum over layers of mean w (f(recon) - f(real))^2, with f a layer's map, each place of it scaled
    to length 1, and w the learned factors of its channels; the square is summed over channels, the
    mean is over places and the batch (eq. 1). Greyscale images are expanded to three channels. The
    weights of the network are fetched once (VGG-16: 553 MB, AlexNet: 244 MB); the factors come with
    torchmetrics.
    """

    network: Literal["vgg", "alex"] = "vgg"
    """`vgg`: VGG-16, which is the usual one for training; `alex`: AlexNet, from 31 pixels on."""
    weights: Path | None = None
    """A local safetensors file of torchvision's network instead, which `vgx import-weights` makes
    of its `.pth` file."""
    pretrained: bool = True
    """false: random weights, for a trial without a network."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module that holds the network and has the generator's term."""
        from vgx_builtin.losses.modules import LpipsTerm
        from vgx_builtin.lpips import Lpips, trunk_weights

        del image, latent
        trained = self.pretrained or self.weights is not None
        weights = trunk_weights(self.network, self.weights, "loss lpips") if trained else None
        return LpipsTerm(Lpips(self.network, weights))

    def note(self, image: vgx.ImageSpec) -> str:
        """Return a warning when the network is not trained."""
        del image
        if self.pretrained or self.weights is not None:
            return ""
        return f"The loss {self.label} compares images in a random network, so it is no LPIPS."

    def untrained(self) -> Self:
        """Return the same loss without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
