"""What the discriminators on a frozen backbone have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import PositiveInt

import vgx

if TYPE_CHECKING:
    from vgx_builtin.discriminators.frozen_backbone import FrozenBackbone, Sides


class ProjectedBase(vgx.Discriminator):
    """The base of the discriminators on the feature maps of a frozen timm backbone."""

    backbone: str
    """A model name that timm knows."""
    pretrained: bool = False
    """Use the weights that timm fetches from the hub. Without these or `weights` the backbone is
    random."""
    weights: Path | None = None
    """Use a local safetensors file of the backbone instead."""
    size: PositiveInt | None = 224
    """Pixels a side to which images are resized before the backbone; `null` leaves them as they
    are."""

    def build_backbone(
        self, image: vgx.ImageSpec, **options: Any
    ) -> tuple[FrozenBackbone, list[tuple[int, Sides]]]:
        """Return the backbone, and the features and sides of each of its maps.

        `options` are those of `timm.create_model`. Raises `RecipeError` for a backbone without maps
        [B, F, h, w], and what `backbones.create` raises.
        """
        from vgx_builtin.backbones import create
        from vgx_builtin.discriminators.frozen_backbone import FrozenBackbone
        from vgx_builtin.modules import smaller
        from vgx_builtin.wrapping import output_on_black

        seen = image if self.size is None else smaller(image, self.size, self.size)
        model = create(
            self.backbone, seen, pretrained=self.pretrained, weights=self.weights,
            features_only=True, **options,
        )  # fmt: skip
        backbone = FrozenBackbone(model, image, seen)
        shapes = [map_.shape for map_ in output_on_black(backbone, image)]
        own = model.feature_info.channels()
        if any(len(s) != 4 or s[1] != features for s, features in zip(shapes, own, strict=True)):
            raise vgx.RecipeError(
                f"discriminator {self.type}: backbone: {self.backbone} gives maps of another shape "
                "than [B, F, h, w]; use another one, such as resnet18"
            )
        return backbone, [(shape[1], (shape[2], shape[3])) for shape in shapes]

    def note(self, image: vgx.ImageSpec) -> str:
        """Return a warning when the backbone is not trained."""
        del image
        if self.pretrained or self.weights is not None:
            return ""
        return (
            f"The discriminator {self.type} sees images through a random {self.backbone}, which is "
            "not trained: pretrained: true fetches weights, weights: FILE.safetensors reads them."
        )

    def untrained(self) -> Self:
        """Return the same discriminator without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
