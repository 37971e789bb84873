"""The network of the Frechet Inception Distance."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.files.image_files import open_regular
from vgx_builtin.weight_files import WeightFile, fetched

if TYPE_CHECKING:
    from torch import Tensor, nn

# The weights of TensorFlow's network of 2015, as torch-fidelity and torchmetrics use them.
WEIGHTS = WeightFile(
    "inception-2015",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
)
INSTEAD = (
    "a local file works too: features: {type: inception, weights: FILE.safetensors}; the metrics "
    "frechet-distance and kernel-distance need no weights"
)
MAX_BYTES = 2**27
"""More of a file is not read: these weights are 95 MB."""


class Inception(vgx.Features, type="inception"):
    """The network of the Frechet Inception Distance: Inception v3 of 2015 (Szegedy et al. 2016).

    Its 2048 features before the classifier, which published values are computed with. The weights
    (95 MB) are fetched when a metric first needs them; a notice names their file and its SHA-256.
    Images must be RGB or grey; grey ones are expanded to three channels.
    """

    weights: Path | None = None
    """A local safetensors file instead, which `vgx import-weights` makes of torch-fidelity's
    file."""

    def build(self, image: vgx.ImageSpec) -> nn.Module:
        """Make a module: images [N, C, H, W] -> features [N, 2048]."""
        from vgx_builtin.features.networks import InceptionNetwork, require_colours

        require_colours("features inception", image)
        file, data = self._content()
        try:
            network = InceptionNetwork(_tensors(data))
        # A file of another kind makes its readers raise any kind of error.
        except Exception as error:
            raise _other(file, error) from error
        digest = hashlib.sha256(data).hexdigest()
        warnings.warn(f"inception: {file}, SHA-256 {digest}", vgx.Notice, stacklevel=2)
        return network

    def classifier(self) -> Tensor:
        """[1008, 2048]  The weight of the classifier, which gives logits without a bias."""
        file, data = self._content()
        try:
            return _tensors(data)["fc.weight"]
        except Exception as error:
            raise _other(file, error) from error

    def _content(self) -> tuple[Path, bytes]:
        """Return the file of weights and its content."""
        file = self.weights or fetched(WEIGHTS, "features inception", INSTEAD)
        try:
            with open_regular(file, file.name) as opened:
                return file, opened.read(MAX_BYTES)
        except Exception as error:
            raise _other(file, error) from error


def _tensors(data: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(data)


def _other(file: Path, error: Exception) -> vgx.RecipeError:
    """Return the error for a file of another kind."""
    first = str(error).partition("\n")[0]
    wanted = "safetensors of the network of 2015 are needed"
    return vgx.RecipeError(f"features inception: {file}: {wanted}: {first}")
