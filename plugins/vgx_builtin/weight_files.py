"""Files of weights that their authors publish: fetched once, converted and kept in the cache."""

from __future__ import annotations

import hashlib
import urllib.error
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import vgx


@dataclass(frozen=True)
class WeightFile:
    """A file of weights at an address."""

    name: str  # of its file in the cache, without an ending
    url: str
    digest: str  # how the SHA-256 of the file at this address begins


def fetched(weights: WeightFile, part: str, instead: str) -> Path:
    """Return the safetensors file in the cache; fetch it first when it is missing or damaged.

    Raises `HubError` when it is neither cached nor to be fetched: `part` begins the message and
    `instead`, what the user can do, ends it.
    """
    from huggingface_hub import constants
    from torch.hub import download_url_to_file

    folder = vgx.cache_dir() / "weights"
    file = folder / f"{weights.name}.safetensors"
    if file.is_file():
        if _as_noted(file):
            return file
        text = f"{part}: {file}: damaged, so it is fetched again"
        warnings.warn(text, vgx.Notice, stacklevel=3)
    if constants.HF_HUB_OFFLINE:  # what --offline sets
        raise vgx.HubError(f"{part}: its weights are not cached; {instead}")
    folder.mkdir(parents=True, exist_ok=True)
    # In a folder of its own: other processes may fetch the same weights.
    with TemporaryDirectory(dir=folder) as own:
        download, new = Path(own, "download.pth"), Path(own, file.name)
        try:
            download_url_to_file(weights.url, str(download), weights.digest, progress=False)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            message = f"{part}: {weights.url} can't be fetched: {error}"
            raise vgx.HubError(f"{message}; {instead}") from error
        vgx.import_weights(download, new)
        _as_noted(new)
        for made in (new.with_suffix(".sha256"), new):
            made.replace(folder / made.name)
    return file


def _as_noted(file: Path) -> bool:
    """Return whether a file has the SHA-256 in the text beside it; note that when there is none."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    beside = file.with_suffix(".sha256")
    if beside.is_file():
        return beside.read_bytes() == digest.encode()
    with suppress(OSError):  # a cache that cannot be written
        beside.write_text(digest)
    return True
