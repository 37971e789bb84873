"""Losses on the features of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class FeatureMatching(vgx.Loss, type="feature-matching"):
    """Match the discriminator's inner features of fakes with those of real images.

    `pairs`: mean (f(recon) - f(real))^2, each reconstruction with its image: the likelihood of
    VAE-GAN (Larsen et al. 2016, eq. 7), up to a factor and a constant. `mean`: mean (E f(fake) -
    E f(real))^2, E over the batch: Salimans et al. 2016, section 3.1. The mean is over feature
    values, and over layers. It has no term for the discriminator.
    """

    layers: Literal["last", "all"] = "last"
    """The discriminator's last features, or those of all its stages with equal weights. The last
    ones of `multi-scale` are those of its coarsest scale."""
    statistic: Literal["pairs", "mean"] = "pairs"
    """What is compared: each image, or the mean of the batch. With `pairs`, `train.fakes` must name
    `recon`, and the discriminator must judge images."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the features are the same."""
        import torch
        from torch.nn import functional as F

        from vgx_builtin.modules import at_least_float32

        chosen = slice(-1, None) if self.layers == "last" else slice(None)
        reals = step.real_score.features[chosen]
        fakes = step.fake_score.features[chosen]
        if not reals:
            raise vgx.RecipeError("the discriminator gives no features; use another one")
        pairs = self.statistic == "pairs"
        if pairs and step.judges != "images":
            text = f"the discriminator judges {step.judges}, not images; write statistic: mean"
            raise vgx.RecipeError(f"statistic: pairs compares images: {text}")
        if pairs and step.recon is not None and "recon" not in step.fakes:
            raise vgx.RecipeError("statistic: pairs needs 'recon' in train.fakes; mean does not")
        distances = []
        for real, fake in zip(reals, fakes, strict=True):  # [B, ...] and [F*B, ...]
            target, values = at_least_float32(real.detach()), at_least_float32(fake)
            if pairs:
                by_kind = values.chunk(len(fake) // len(real))  # [B, ...] for each of step.fakes
                distances.append(F.mse_loss(by_kind[step.fakes.index("recon")], target))
            else:
                own = torch.stack([values.mean(0), target.mean(0)])
                distances.append(F.mse_loss(*vgx.mean_over_processes(own)))
        return torch.stack(distances).mean()


class Perceptual(vgx.Loss, type="perceptual"):
    """Distance in the feature maps of a frozen timm backbone (Johnson et al. 2016).

    sum over layers of mean |f(recon) - f(real)|^2, with f a layer's map, each place of it scaled to
    length 1; the square is summed over channels, the mean is over places and the batch. This is
    LPIPS (Zhang et al. 2018, eq. 1) without its learned factors. Greyscale images are expanded to
    three channels.
    """

    backbone: str = "vgg16"
    """The name of a timm model that takes images of any size."""
    pretrained: bool = False
    """Compare with the weights that timm fetches from the hub. Without these or `weights` the
    backbone is random."""
    weights: Path | None = None
    """Compare with a local safetensors file of the backbone instead."""
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    """The backbone's feature maps to compare, 0 being the shallowest. In VGG16 the default is
    relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3, as in LPIPS."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module that holds the frozen backbone and has the generator's term."""
        del image, latent
        from vgx_builtin.backbones import create, statistics
        from vgx_builtin.losses.modules import FeatureDistance

        colour = vgx.ImageSpec(size=224)
        backbone = create(
            self.backbone,
            colour,
            pretrained=self.pretrained,
            weights=self.weights,
            features_only=True,
            out_indices=self.layers,
        )
        if backbone.pretrained_cfg.get("fixed_input_size"):
            raise vgx.RecipeError(
                f"loss perceptual: backbone: {self.backbone} takes images of one size only; "
                "use a convolutional one, such as vgg16"
            )
        return FeatureDistance(backbone, *statistics(backbone, colour))

    def note(self, image: vgx.ImageSpec) -> str:
        """Return a warning when the backbone is not trained."""
        del image
        if self.pretrained or self.weights is not None:
            return ""
        return (
            f"The loss {self.label} compares images with a random {self.backbone}, not a trained "
            "one: pretrained: true fetches weights, weights: FILE.safetensors reads them."
        )

    def untrained(self) -> Self:
        """Return the same loss without outside weights."""
        return self.model_copy(update={"pretrained": False, "weights": None})
