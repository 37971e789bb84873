"""Convert `.pt` files of other programs to safetensors: the only module that reads pickle files.

PyTorch reads them with `weights_only`: its unpickler calls only functions that make tensors. There
is no fallback to a reader that runs code.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgx.errors import Notice, StorageError
from vgx.files import require_ending, user_path, write_file
from vgx.output import short, visible
from vgx.runs.checkpoint import tensor_bytes
from vgx.runs.checkpoint import tensors as read_tensors

# Keys under which programs store weights beside other values, in order of preference.
_USUAL = (
    "ema_state_dict", "params_ema", "g_ema", "model_ema", "state_dict", "model_state_dict", "model",
    "params", "weights", "net", "module", "generator", "encoder", "decoder", "discriminator",
)  # fmt: skip
MAX_TENSORS = 20_000
# Prefixes of torch.compile and DataParallel, in either order, and of modules that contain nothing
# but a network.
WRAPPERS = ("_orig_mod.module.", "module.", "_orig_mod.", "model.", "network.", "net.", "backbone.")


def import_weights(
    source: str | Path, target: str | Path, key: str | None = None
) -> dict[str, Tensor]:
    """Write the tensors of a `.pt` file as safetensors, and return them.

    `key` is where they are in the file, by default the first of the usual ones. A `Notice` says
    which that is if tensors are under others too, and which prefix is taken off all names. Raises
    `StorageError` for a file that holds anything but weights; nothing is written then.
    """
    source, target = user_path(source), user_path(target)
    require_ending(target, "weights", [".safetensors"])
    if target.exists():
        raise StorageError(f"{target}: there already; give another name")
    size = _size(source)
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    # An unknown file can make the reader raise any error.
    except Exception as error:
        first = visible(next(iter(str(error).strip().splitlines()), type(error).__name__))
        message = f"{source}: not read, since it holds more than weights, or is damaged"
        raise StorageError(f"{message}: {short(first)}") from error
    tensors = _plain(_state(loaded, source, key))
    if len(tensors) > MAX_TENSORS:
        raise StorageError(f"{source}: {len(tensors):,} tensors; at most {MAX_TENSORS:,} are read")
    try:
        # Attributes that a file gives its tensors would hide methods; a detached one has none.
        tensors = {name: Tensor.detach(tensor) for name, tensor in tensors.items()}
        taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        # Views of a small storage can claim any size; tied weights are a few times the file.
        if taken > 4 * size + 2**20:
            raise StorageError(f"{source}: {size:,} bytes that claim to be {taken:,}; not read")
        data = tensor_bytes(tensors)
        again = read_tensors(data, target)
    except StorageError:
        raise
    # Tensors that are no plain numbers, and names that safetensors cannot have, raise any error.
    except Exception as error:
        raise StorageError(f"{source}: {short(visible(str(error)))}") from error
    if _shapes(again) != _shapes(tensors):
        raise StorageError(f"{source}: has names or types that safetensors can't hold; not written")
    write_file(target, data)
    return tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _size(source: Path) -> int:
    """Return the file's size in bytes; refuse an archive that is larger when it is unpacked."""
    try:
        size = source.stat().st_size
        if not source.is_file():
            raise StorageError(f"{source}: no file")
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                entries = archive.infolist()
            if len(entries) > MAX_TENSORS + 100:  # one for each tensor, and a few others
                count = f"{len(entries):,} tensors; at most {MAX_TENSORS:,} are read"
                raise StorageError(f"{source}: {count}")
            names = {entry.filename for entry in entries}
            packed = [e for e in entries if e.compress_type != zipfile.ZIP_STORED]
            if packed or len(names) < len(entries) or sum(e.file_size for e in entries) > size:
                message = "not an archive as PyTorch writes it (compressed, or names twice)"
                raise StorageError(f"{source}: {message}")
    except OSError as error:
        raise StorageError(f"{source}: {error.strerror or error}") from error
    except StorageError:
        raise
    # An archive of a stranger can make its reader raise many kinds of error.
    except Exception as error:
        reason = short(visible(f"{type(error).__name__}: {error}"))
        raise StorageError(f"{source}: not an archive as PyTorch writes it: {reason}") from error
    return size


def _state(loaded: Any, source: Path, key: str | None) -> dict[str, Tensor]:
    """Return the tensors by name: those under `key`, of the file itself, or under a usual key."""
    if not isinstance(loaded, Mapping):
        raise StorageError(f"{source}: holds a {type(loaded).__name__}, not tensors by name")
    if key is None and loaded and _all_tensors(loaded):
        return dict(loaded)
    found = [name for name, value in loaded.items() if isinstance(name, str) and _is_state(value)]
    usual = [name for name in ([key] if key else _USUAL) if name in found]
    if not usual:
        keys = ", ".join(short(visible(str(name))) for name in list(loaded)[:10]) or "nothing"
        looked = f"under {short(visible(key))}" if key else f"in it or under {', '.join(_USUAL)}"
        raise StorageError(f"{source}: no tensors by name {looked}; it has: {keys}")
    others = ", ".join(short(visible(name)) for name in found if name != usual[0])
    if others and key is None:
        text = f"{source}: the tensors under {usual[0]} are taken; others: {others} (--key KEY)"
        warnings.warn(text, Notice, stacklevel=3)
    return dict(loaded[usual[0]])


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and _all_tensors(value)


def _all_tensors(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in mapping.items())


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix of a wrapper when all names have it and more; they stay different."""
    removed = ""
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) and name != wrapper for name in tensors):
            tensors = {name.removeprefix(wrapper): t for name, t in tensors.items()}
            removed += wrapper
    if removed:
        warnings.warn(f"the prefix {removed} of all names is taken off", Notice, stacklevel=3)
    return tensors
