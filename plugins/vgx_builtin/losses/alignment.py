"""Latents that are alike where a trained network finds the image alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

import vgx

Margin = Annotated[float, Field(ge=0, lt=2)]


class Alignment(vgx.Loss, type="alignment"):
    """Align latents with the features of a trained timm model: VA-VAE (Yao et al. 2025).

    mean relu(1 - cosine_margin - cos(z'_i, f_i)) over places i, plus mean relu(|cos(z'_i, z'_j) -
    cos(f_i, f_j)| - distance_margin) over pairs of places of an image (eq. 2 to 6), with f the last
    feature map, at as many places as the latents have, and z' the latents times a learned matrix.
    In the authors' program both terms have z'; so here. There the weight is 0.1 times a ratio of
    gradients at the encoder's last layer; here it is the loss's own `weight`.
    """

    backbone: str = "vit_small_patch14_dinov2.lvd142m"
    """The name of a timm model. Images are resized so that its last map has the latents' sides."""
    pretrained: bool = True
    """Align with the weights that timm fetches from the hub; false: random ones, for a trial."""
    weights: Path | None = None
    """Align with a local safetensors file of the backbone instead."""
    cosine_margin: Margin = 0.5
    """How much below 1 a cosine may be without cost."""
    distance_margin: Margin = 0.25
    """How much the similarities of two places may differ without cost."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module that holds the frozen backbone and has the generator's term."""
        from vgx_builtin.backbones import create, reduction, statistics
        from vgx_builtin.losses.alignment_term import AlignmentTerm
        from vgx_builtin.modules import smaller

        if len(latent.shape) != 3:
            message = f"it needs spatial latents, as latent: [4, 8, 8], not {list(latent.shape)}"
            raise vgx.RecipeError(f"loss {self.label}: {message}")
        if image.channels not in (1, 3):
            message = "its backbone takes RGB or grey images; leave it out, or use image.channels=3"
            raise vgx.RecipeError(f"loss {self.label}: {message}")
        factor = reduction(self.backbone)
        height, width = (factor * side for side in latent.shape[1:])
        colour = smaller(vgx.ImageSpec(size=224), height, width)
        backbone = create(
            self.backbone,
            colour,
            pretrained=self.pretrained and self.weights is None,
            weights=self.weights,
            features_only=True,
            out_indices=(-1,),
        )
        return AlignmentTerm(
            backbone,
            *statistics(backbone, colour),
            (height, width),
            latent.shape[0],
            (self.cosine_margin, self.distance_margin),
        )

    def note(self, image: vgx.ImageSpec) -> str:
        """Return a warning when the backbone is not trained."""
        del image
        if self.pretrained or self.weights is not None:
            return ""
        return f"The loss {self.label} aligns latents with a random {self.backbone}."

    def untrained(self) -> Self:
        """Return the same loss without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
