"""Other people's `.pt` files, made into safetensors: the one place that reads what pickle wrote.

PyTorch reads them with its unpickler for weights, which calls nothing but what makes tensors. There
is no other way in, and no fallback to one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgx.errors import RecipeError, StorageError
from vgx.files import write_file
from vgx.recipe.yaml import short, visible
from vgx.runs.checkpoint import tensor_bytes

# Where programs keep the weights among other things, in the order of preference.
_USUAL = (
    "ema_state_dict", "params_ema", "g_ema", "model_ema", "state_dict", "model_state_dict", "model",
    "params", "weights", "net", "module", "generator", "encoder", "decoder", "discriminator",
)  # fmt: skip
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before names


def import_weights(source: Path, target: Path) -> dict[str, Tensor]:
    """Write the tensors of a `.pt` file as safetensors, and return them.

    Raises `StorageError` for a file that holds anything but weights, and writes nothing then.
    """
    if target.suffix != ".safetensors":
        raise RecipeError(f"{target}: the name of what is written must end in .safetensors")
    if target.exists():
        raise StorageError(f"{target}: there already; give another name")
    size = _size(source)
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    # A file from a stranger makes the reader raise anything at all.
    except Exception as error:
        first = visible(next(iter(str(error).strip().splitlines()), type(error).__name__))
        message = f"{source}: not read, since it holds more than weights, or is damaged"
        raise StorageError(f"{message}: {short(first)}") from error
    tensors = _plain(_state(loaded, source))
    taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    # Views of one small storage may claim to be anything; tied weights are a few times the file.
    if taken > 4 * size + 2**20:
        raise StorageError(f"{source}: {size:,} bytes that claim to be {taken:,}; not read")
    try:
        data = tensor_bytes(tensors)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{source}: {short(visible(str(error)))}") from error
    write_file(target, data)
    return tensors


def _size(source: Path) -> int:
    """Return the file's size; refuse an archive that grows when it is read."""
    try:
        size = source.stat().st_size
        if not source.is_file():
            raise StorageError(f"{source}: no file")
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                entries = archive.infolist()
            names = {entry.filename for entry in entries}
            packed = [e for e in entries if e.compress_type != zipfile.ZIP_STORED]
            if packed or len(names) < len(entries) or sum(e.file_size for e in entries) > size:
                message = "not an archive as PyTorch writes it (compressed, or names twice)"
                raise StorageError(f"{source}: {message}")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{source}: {reason}") from error
    return size


def _state(loaded: Any, source: Path) -> dict[str, Tensor]:
    """Find the tensors by name: the file itself, or what stands under a usual key."""
    if not isinstance(loaded, Mapping):
        raise StorageError(f"{source}: holds a {type(loaded).__name__}, not tensors by name")
    for found in (loaded, *(loaded.get(key) for key in _USUAL)):
        if isinstance(found, Mapping) and found and _all_tensors(found):
            return dict(found)
    keys = ", ".join(short(visible(str(key))) for key in list(loaded)[:10]) or "nothing"
    looked = ", ".join(_USUAL)
    raise StorageError(f"{source}: no tensors by name in it or under {looked}; it has: {keys}")


def _all_tensors(found: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the names of wrappers, when all tensors have them."""
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): t for name, t in tensors.items()}
    return tensors
