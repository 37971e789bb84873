"""LPIPS, the distance of images in a network's feature maps with learned factors.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1.
The factors (BSD-2-Clause) are those of version 0.1, which torchmetrics brings with it. The trunks
are torchvision's.

Letters: B images, C channels, H x W pixels, h x w a feature map.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from torch import Tensor, nn

import vgx
from vgx_builtin.backbones import check_file
from vgx_builtin.pretrained import Standardise, unit_vectors
from vgx_builtin.weight_files import WeightFile, fetched

Network = Literal["vgg", "alex"]
# The layers of a trunk whose outputs are compared: the last ReLU before each pooling in VGG-16, and
# every ReLU in AlexNet.
LAYERS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
LEAST = {"vgg": 16, "alex": 31}  # pixels a side
SITE = "https://download.pytorch.org/models"
WEIGHTS = {
    "vgg": WeightFile("vgg16-torchvision", f"{SITE}/vgg16-397923af.pth", "397923af"),
    "alex": WeightFile("alexnet-torchvision", f"{SITE}/alexnet-owt-7be5be79.pth", "7be5be79"),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pretraining's images


class Lpips(nn.Module):
    """The distance of two images, which no training changes."""

    def __init__(self, network: Network, weights: Mapping[str, Tensor] | None) -> None:
        """Take the weights of the trunk; None leaves them random."""
        super().__init__()
        self.least, self.layers = LEAST[network], LAYERS[network]
        self.trunk = _trunk(network)
        if weights is not None:
            self.trunk.load_state_dict(dict(weights))
        for index, factors in enumerate(_learned_factors(network)):
            self.register_buffer(f"factors_{index}", factors)  # [1, C, 1, 1]
        self.standardise = Standardise(MEAN, STD)
        self.trunk.eval()
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the distance must not change while networks are trained."""
        del mode
        return self

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[B]  The distance of each image [B, C, H, W] in [0, 1] from that of the other tensor."""
        distance = a.new_zeros(len(a))
        for index, (x, y) in enumerate(zip(self._maps(a), self._maps(b), strict=True)):
            factors = self.get_buffer(f"factors_{index}")
            distance = distance + ((x - y).square() * factors).sum(1).mean((1, 2))
        return distance

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return feature maps [B, C, h, w]; each place is a vector of length 1."""
        channels, side = images.shape[1], min(images.shape[2:])
        if channels not in (1, 3):
            message = f"its network takes RGB or grey images, and these have {channels} channels"
            raise vgx.RecipeError(f"{message}; leave lpips out, or use image.channels=3")
        if side < self.least:
            message = f"an image has {side} pixels a side, and its network needs {self.least}"
            raise vgx.RecipeError(f"{message}; vgg needs {LEAST['vgg']}")
        x, maps = self.standardise(images), []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.layers:
                maps.append(unit_vectors(x))
        return maps


def trunk_weights(network: Network, file: Path | None, part: str) -> dict[str, Tensor]:
    """Return the weights of a trunk, from a local file or fetched once from PyTorch's site.

    Raises `RecipeError` for a file of anything else, `HubError` when they cannot be fetched.
    """
    from safetensors import safe_open

    instead = "a local file works too: weights: FILE.safetensors"
    place = file or fetched(WEIGHTS[network], part, instead)
    check_file(place)
    shapes = {f"features.{name}": t.shape for name, t in _trunk(network).state_dict().items()}
    try:
        with safe_open(place, "pt") as opened:
            known = shapes.keys() & {*opened.keys()}
            tensors = {name: opened.get_tensor(name) for name in known}
    # A damaged file makes its reader raise any kind of error.
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise vgx.RecipeError(f"{part}: weights: {place}: not read: {first}") from error
    wrong = [name for name in shapes if name not in tensors or tensors[name].shape != shapes[name]]
    if wrong:
        message = f"not the weights of torchvision's {network} network: '{wrong[0]}' is missing"
        raise vgx.RecipeError(f"{part}: weights: {place}: {message}, or has another shape")
    return {name.removeprefix("features."): tensor for name, tensor in tensors.items()}


def _trunk(network: Network) -> nn.Sequential:
    """Return the convolutional layers of torchvision's network up to the last that is compared."""
    from torchvision.models import alexnet, vgg

    layers: Iterable[nn.Module]
    layers = vgg.make_layers(vgg.cfgs["D"]) if network == "vgg" else alexnet(weights=None).features
    return nn.Sequential(*[*layers][: LAYERS[network][-1] + 1])


def _learned_factors(network: Network) -> list[Tensor]:
    """Return the learned factors of each layer's channels, [1, C, 1, 1]."""
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise vgx.RecipeError(
            "lpips: torchmetrics, which has its learned factors, is not installed"
        )
    file = Path(package.origin).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"
    try:
        with tempfile.TemporaryDirectory() as folder:
            state = vgx.import_weights(file, Path(folder) / "factors.safetensors")
        return [state[f"lin{index}.model.1.weight"] for index in range(len(LAYERS[network]))]
    except Exception as error:
        raise vgx.RecipeError(f"lpips: {file}: its learned factors can't be read") from error
