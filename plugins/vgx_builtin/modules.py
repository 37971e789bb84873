"""Modules that several built-in parts share.

Letters: B images, C channels, H x W pixels, Z the latent shape, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import vgx
from vgx_builtin.pretrained import Standardise

SLOPE = 0.2  # of LeakyReLU, as in DCGAN (Radford et al. 2016)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32; one in float64 stays in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class GaussianEncoder(nn.Module):
    """A trunk that gives features, and two layers that compute mu and logvar from them."""

    def __init__(self, trunk: nn.Module, mu: nn.Module, logvar: nn.Module) -> None:
        super().__init__()
        self.trunk, self.mu, self.logvar = trunk, mu, logvar

    def forward(self, images: Tensor) -> vgx.Gaussian:
        """Images [B, C, H, W] -> a Gaussian over [B, *Z], at least in float32."""
        features = self.trunk(images)  # [B, F] or [B, F, h, w]
        mu, logvar = self.mu(features), self.logvar(features)  # [B, *Z]
        return vgx.Gaussian(at_least_float32(mu), at_least_float32(logvar))


class StagedDiscriminator(nn.Module):
    """Stages whose outputs are the features, and a head that scores the last."""

    def __init__(self, stages: Sequence[nn.Module], head: nn.Module, halvings: int = 0) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head, self.halvings = head, halvings

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, h, w] or [B, 1], every stage's output."""
        features = []
        if self.halvings:
            images = nn.functional.avg_pool2d(images, 2**self.halvings)
        x = images * 2 - 1  # centred, as the weights' initialisation expects
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return vgx.Score(self.head(x), tuple(features))


class TimmPatchDiscriminator(nn.Module):
    """A timm backbone's feature maps, and a 1x1 convolution that scores each place of the last."""

    def __init__(self, backbone: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone, self.standardise = backbone, Standardise(mean, std)
        self.head = nn.Conv2d(backbone.feature_info.channels()[-1], 1, 1)

    def forward(self, images: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1] -> logits [B, 1, h, w] and every stage's feature map."""
        features = self.backbone(self.standardise(images))
        return vgx.Score(self.head(features[-1]), tuple(features))


def normalisation(kind: str, width: int) -> list[nn.Module]:
    """Return the layer of this kind for `width` channels, with factor and bias; `none` has none."""
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    if kind == "instance":
        return [nn.InstanceNorm2d(width, affine=True)]
    if kind == "group":
        # Up to 32 groups as Wu and He 2018, of 4 channels or more: one channel of one place would
        # be normalised to nothing. A width that 8 does not divide is one group.
        return [nn.GroupNorm(max(math.gcd(128, width) // 4, 1), width)]
    return []


def halving_stages(before: int, widths: Sequence[int], norm: str) -> list[nn.Module]:
    """Return DCGAN's 4x4 convolutions of stride 2 with LeakyReLU; the first has no norm."""
    stages: list[nn.Module] = []
    for width in widths:
        # BatchNorm takes the mean away, and a bias with it.
        layers = normalisation(norm, width) if stages else []
        conv = nn.Conv2d(before, width, 4, stride=2, padding=1, bias=not layers)
        stages.append(nn.Sequential(conv, *layers, nn.LeakyReLU(SLOPE)))
        before = width
    return stages


def spectrally_normed(network: nn.Module) -> nn.Module:
    """Divide every convolution's and linear layer's weight by its largest singular value."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)
    return network


def glorot(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Draw a layer's weight from Glorot's uniform distribution times `gain`, and set its bias to 0.

    Glorot and Bengio 2010, eq. 16.
    """
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def draw_as_dcgan(network: nn.Module) -> nn.Module:
    """Draw every convolution's weight from N(0, 0.02), biases 0 (Radford et al. 2016)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def flat_size(part: str, latent: vgx.LatentSpec) -> int:
    """Return the size of a flat latent. Raises `RecipeError` for a spatial one."""
    if len(latent.shape) != 1:
        raise vgx.RecipeError(
            f"latent: {part} wants one number, not the shape {list(latent.shape)}"
        )
    return latent.shape[0]


def smallest_sides(part: str, image: vgx.ImageSpec, halvings: int) -> tuple[int, int]:
    """Return height and width after halving. Raises `RecipeError` when one does not halve."""
    step: int = 2**halvings
    if image.height % step or image.width % step:
        fitting = [max(side // step * step, step) for side in (image.height, image.width)]
        raise vgx.RecipeError(
            f"{part}: {pixels(image)} can't be halved {halvings} times; "
            f"try image.size={_setting(*fitting)}, or fewer widths"
        )
    return image.height // step, image.width // step


def last_sides(part: str, image: vgx.ImageSpec, halvings: int) -> tuple[int, int]:
    """Return height and width after halving, rounded down.

    Raises `RecipeError` when nothing is left of one.
    """
    height, width = image.height // 2**halvings, image.width // 2**halvings
    if min(height, width) == 0:
        raise vgx.RecipeError(
            f"{part}: nothing is left of {pixels(image)} after {halvings} halvings; "
            f"give at most {min(image.height, image.width).bit_length() - 1} widths"
        )
    return height, width


def latent_sides(
    part: str, latent: vgx.LatentSpec, image: vgx.ImageSpec, halvings: int
) -> tuple[int, int]:
    """Return height and width after halving, which a spatial latent must have.

    A flat latent is any size. Raises `RecipeError` when they do not fit.
    """
    height, width = smallest_sides(part, image, halvings)
    if len(latent.shape) == 1 or latent.shape[1:] == (height, width):
        return height, width
    given = list(latent.shape)
    sides = [(image.height / 2**n, image.width / 2**n) for n in range(1, 13)]
    fitting = [n for n, each in enumerate(sides, 1) if [*each] == given[1:]]
    raise vgx.RecipeError(
        f"latent: {part} halves {pixels(image)} {halvings} times to {height}x{width}, and the "
        f"shape {given} is not of that; try latent=[{given[0]},{height},{width}]"
        + "".join(f", or {n} widths" for n in fitting)
    )


def smaller(image: vgx.ImageSpec, height: int, width: int) -> vgx.ImageSpec:
    """Return the same images at another size; the size of square ones is one number."""
    return replace(image, size=height if height == width else (height, width))


def pixels(image: vgx.ImageSpec) -> str:
    """Return the size of images for a message: "32 pixels", or "32 x 64 pixels"."""
    square = image.height == image.width
    return f"{image.height} pixels" if square else f"{image.height} x {image.width} pixels"


def _setting(height: int, width: int) -> str:
    """Return a size as a recipe has it: "32", or "[32,64]"."""
    return str(height) if height == width else f"[{height},{width}]"
