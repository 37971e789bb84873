"""The network of the Frechet Inception Distance."""

from __future__ import annotations

import hashlib
import urllib.error
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import vgx
from vgx_builtin.files.image_files import open_regular

if TYPE_CHECKING:
    from torch import nn

# The weights of TensorFlow's network of 2015, as torch-fidelity and torchmetrics use them.
URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
DIGEST = "6726825d"  # how the file's SHA-256 begins
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
        from safetensors.torch import load

        from vgx_builtin.features.networks import InceptionNetwork, require_colours

        require_colours("features inception", image)
        file = self.weights or _fetched()
        try:
            with open_regular(file, file.name) as opened:
                data = opened.read(MAX_BYTES)
            network = InceptionNetwork(load(data))
        # A file of another kind makes its readers raise any kind of error.
        except Exception as error:
            first = str(error).partition("\n")[0]
            wanted = "safetensors of the network of 2015 are needed"
            raise vgx.RecipeError(f"features inception: {file}: {wanted}: {first}") from error
        digest = hashlib.sha256(data).hexdigest()
        warnings.warn(f"inception: {file}, SHA-256 {digest}", vgx.Notice, stacklevel=2)
        return network


def _fetched() -> Path:
    """Return the file of weights in the cache; fetch it first when it is missing or damaged."""
    from huggingface_hub import constants
    from torch.hub import download_url_to_file

    folder = vgx.cache_dir() / "weights"
    file, download = folder / "inception-2015.safetensors", folder / "inception-2015.pth"
    if file.is_file():
        if _as_noted(file):
            return file
        text = f"inception: {file}: damaged, so it is fetched again"
        warnings.warn(text, vgx.Notice, stacklevel=3)
    local = "a local file works too: features: {type: inception, weights: FILE.safetensors}"
    instead = f"{local}; the metrics frechet-distance and kernel-distance need no weights"
    if constants.HF_HUB_OFFLINE:  # what --offline sets
        raise vgx.HubError(f"features inception: its weights are not cached; {instead}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(URL, str(download), hash_prefix=DIGEST, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        message = f"features inception: {URL} can't be fetched: {error}"
        raise vgx.HubError(f"{message}; {instead}") from error
    for old in (file, file.with_suffix(".sha256")):
        old.unlink(missing_ok=True)
    vgx.import_weights(download, file)
    download.unlink()
    _as_noted(file)
    return file


def _as_noted(file: Path) -> bool:
    """Return whether a file has the SHA-256 in the text beside it; note that when there is none."""
    digest, beside = hashlib.sha256(file.read_bytes()).hexdigest(), file.with_suffix(".sha256")
    if beside.is_file():
        return beside.read_bytes() == digest.encode()
    with suppress(OSError):  # a cache that cannot be written
        beside.write_text(digest)
    return True
