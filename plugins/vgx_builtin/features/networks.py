"""The networks behind the parts of kind `features`.

Letters: N images, C channels, H x W pixels, S pixels a side, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgx
from vgx_builtin.pretrained import Standardise

WIDTHS = (32, 64, 128, 256)
SIDE = 299  # pixels that Inception was trained with
AVERAGED = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")


def require_colours(part: str, image: vgx.ImageSpec) -> None:
    """Raise `RecipeError` for images that no network can take that was trained with RGB images."""
    if image.channels not in (1, 3):
        raise vgx.RecipeError(
            f"{part}: the network was trained with RGB images, and these have {image.channels} "
            "channels; use metrics in the features random-conv, or image.channels=3"
        )


class RandomNetwork(nn.Module):
    """Convolutions with fixed weights; the mean of each channel of each is a feature."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        generator, before = torch.Generator().manual_seed(seed), channels
        for index, width in enumerate(WIDTHS):
            noise = torch.randn(width, before, 3, 3, generator=generator)
            self.register_buffer(f"weight_{index}", noise * (2 / (9 * before)) ** 0.5)
            before = width

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> features [N, F]."""
        x, means = images * 4 - 2, []  # about as wide as N(0, 1)
        for weight in self.buffers():
            x = F.conv2d(x, weight, stride=2, padding=1).relu()  # [N, width, H / 2, W / 2]
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


class TimmNetwork(nn.Module):
    """A timm backbone without its classifier; images are prepared as in its pretraining."""

    def __init__(
        self, backbone: Any, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.backbone, self.size = backbone.eval().requires_grad_(False), size
        self.standardise = Standardise(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> features [N, F]."""
        x = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        features: Tensor = self.backbone(self.standardise(x.clamp(0, 1)))
        return features


class InceptionNetwork(nn.Module):
    """Inception v3 as the Frechet Inception Distance uses it (Heusel et al. 2017).

    torchvision's network with three properties of TensorFlow's: pooling does not count the border,
    the last block pools by the maximum, and images are resized without a shift of half a pixel.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        trunk = inception_v3(
            weights=None, num_classes=1008, aux_logits=False, transform_input=False,
            init_weights=False,
        )  # fmt: skip
        trunk.load_state_dict(dict(tensors))
        for name in (*AVERAGED, "Mixed_7b", "Mixed_7c"):
            setattr(trunk, name, _Repooled(getattr(trunk, name), maximum=name == "Mixed_7c"))
        trunk.fc = trunk.dropout = nn.Identity()
        self.trunk = trunk.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> features [N, 2048]."""
        pixels = (images * 255).round().expand(-1, 3, -1, -1)  # [N, 3, H, W]  grey images expanded
        rows, columns = (resize_matrix(side).to(images) for side in pixels.shape[2:])
        x = rows @ pixels @ columns.T  # [N, 3, 299, 299]
        features: Tensor = self.trunk((x - 128) / 128)
        return features


class _Repooled(nn.Module):
    """A block of Inception whose pooled branch pools as in TensorFlow."""

    def __init__(self, block: Any, *, maximum: bool) -> None:
        super().__init__()
        self.block, self.maximum = block, maximum

    def forward(self, x: Tensor) -> Tensor:
        branches = self.block._forward(x)[:-1]  # noqa: SLF001
        if self.maximum:
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*branches, self.block.branch_pool(pooled)], 1)


def resize_matrix(side: int) -> Tensor:
    """[299, S]  Linear interpolation of S pixels to 299: pixel i is taken at i * S / 299."""
    places = torch.arange(SIDE) * (side / SIDE)
    before = places.long()
    share = places - before
    matrix = torch.zeros(SIDE, side)
    matrix[torch.arange(SIDE), before] += 1 - share
    matrix[torch.arange(SIDE), (before + 1).clamp(max=side - 1)] += share
    return matrix
