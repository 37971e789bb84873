"""Checkpoints: data, never code, committed by a rename and verified before they are used.

A checkpoint is a directory of safetensors and JSON with a manifest of sizes and SHA-256 sums. It is
written beside its final place, flushed and renamed; only then are older ones removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vgx.errors import Notice, StorageError
from vgx.files import flush_directory, opened, read_file, refusal, storage, write_through
from vgx.runs import reading
from vgx.runs.directory import Run

FORMAT = 1
# For a checkpoint whose tensors are not those of the recipe's networks.
OTHER_VERSION = (
    "another version of vgx or of a plugin may build other networks; "
    "environment.json of the run has its versions"
)
# Largest size in bytes of a JSON file, of the JSON header of safetensors, and of a file of tensors.
MAX_JSON = 16 * 2**20
MAX_TENSORS = 16 * 2**30
_NAME = re.compile(r"step-([0-9]{8,18})(\.old)?")
_TENSORS = ("model", "optimizer", "latents")
MODEL = "model.safetensors"  # the file with the weights
_FILES = (*(f"{name}.safetensors" for name in _TENSORS), "state.json")


@dataclass(frozen=True)
class State:
    """Everything that a run needs to continue: tensors by name, and plain numbers."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    latents: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON, with the key "step"
    sha256: str = ""  # of the file with the weights that were loaded


def save(run: Run, state: State, keep: int, spare: int | None = None) -> Path:
    """Commit a checkpoint of the state's step and remove all but the newest `keep`.

    The checkpoint of the step `spare`, the best one, stays too. Raises `StorageError`; the old
    checkpoints are untouched then.
    """
    final = run.place("checkpoints", f"step-{state.numbers['step']:08}")
    temporary = hidden(final)
    files = {f"{name}.safetensors": tensor_bytes(getattr(state, name)) for name in _TENSORS}
    files["state.json"] = json.dumps({"format": FORMAT, **state.numbers}, indent=1).encode()
    manifest = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    files["manifest.json"] = _manifest(manifest)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_through(temporary / name, data)
        flush_directory(temporary)
        if final.exists():  # the same step again; the old one can be loaded all the time
            aside = final.with_name(f"{final.name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        temporary.rename(final)
        flush_directory(run.checkpoints)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        why = refusal(error, run.path, sum(map(len, files.values())), len(files) + 1)
        raise StorageError(f"{final}: not saved: {why}; {last_good(run)}") from error
    # Newer ones are damaged, or the run would have continued from them.
    existing = committed(run)
    kept = [path for path in existing[existing.index(final) :] if not path.suffix][:keep]
    for path in existing:
        if path not in kept and (path.suffix or _step(path) != spare):
            with contextlib.suppress(OSError):  # renamed first: no reader sees half of it
                shutil.rmtree(path.rename(hidden(path)))
    return final


def load(run: Run, before: int | None = None) -> tuple[Path, State]:
    """Return the path and state of the newest checkpoint that its manifest verifies.

    With `before`, only checkpoints of earlier steps count. Damaged ones are passed over with a
    `Notice`. Raises `StorageError` when none is left; it names what is wrong with each.
    """
    wrong = []
    for path in committed(run):
        if before is not None and _step(path) >= before:
            continue
        try:
            state = _read(path)
        except StorageError as error:
            wrong.append(str(error))
            continue
        if wrong:
            detail = "; ".join(wrong[:3])
            warnings.warn(f"damaged, so {path.name} is used: {detail}", Notice, stacklevel=2)
        return path, state
    none = "none was saved" if before is None else f"none was saved before step {before:,}"
    detail = "; ".join(wrong[:3]) if wrong else none
    raise StorageError(f"{run.path}: no checkpoint to load: {detail}")


def load_step(run: Run, step: int) -> tuple[Path, State]:
    """Return the checkpoint of one step. Raises `StorageError` when it is gone or damaged."""
    path = next((path for path in committed(run) if _step(path) == step), None)
    if path is None:
        raise StorageError(f"{run.path}: no checkpoint of step {step}; {steps_text(run)}")
    return path, _read(path)


def steps_text(run: Run) -> str:
    """Return which steps have a checkpoint, for a message."""
    there = ", ".join(map(str, steps(run)))
    return f"its checkpoints are of the steps {there}" if there else "it has no checkpoint yet"


def steps(run: Run) -> list[int]:
    """Return the steps of the committed checkpoints, in ascending order."""
    return sorted({_step(path) for path in committed(run)})


def committed(run: Run) -> list[Path]:
    """Return the committed checkpoints, newest first; their files are not verified yet."""
    paths = [path for path in run.checkpoints.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (-_step(path), path.suffix))


def last_good(run: Run) -> str:
    """Return a message that names the checkpoint from which a run would continue."""
    last = next(iter(committed(run)), None)
    return f"the last good checkpoint is {last.name}" if last else "there is no checkpoint yet"


def _step(path: Path) -> int:
    return int(path.name.removesuffix(".old").removeprefix("step-"))


def hidden(path: Path) -> Path:
    """Return a path beside `path` that readers ignore and the next start of the run removes."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}")


def _read(path: Path) -> State:
    try:
        manifest, files = verified(path)
        state = reading.parsed(files["state.json"], path / "state.json", reading.NUMBERS)
        numbers: dict[str, Any] = {**state}
        if numbers.pop("format") > FORMAT:
            raise StorageError(f"{path}: written by a newer vgx; install that to go on")
        if numbers["step"] != _step(path):
            raise StorageError(f"{path}: holds step {numbers['step']}; it was renamed")
        model, optimizer, latents = (tensors(files[name], path / name) for name in _FILES[:3])
        return State(model, optimizer, latents, numbers, manifest[MODEL]["sha256"])
    except StorageError:
        raise
    # A damaged file can make a parser raise any error; all mean that the checkpoint is damaged.
    except Exception as error:
        raise StorageError(f"{path}: {type(error).__name__}: {error}") from error


def verified(path: Path) -> tuple[dict[str, reading.Summed], dict[str, bytes]]:
    """Return a checkpoint's manifest, and its files by name. Raises `StorageError` for others."""
    for inner in path.iterdir():
        if inner.is_symlink():
            raise StorageError(f"{inner}: not a regular file")
    manifest = sums(path)
    names = {inner.name for inner in path.iterdir()} - {"manifest.json"}
    if odd := sorted(names ^ set(_FILES)):
        word = "not of this checkpoint" if odd[0] in names else "missing"
        raise StorageError(f"{path / odd[0]}: {word}")
    return manifest, {name: contents(path / name, known) for name, known in manifest.items()}


def sums(path: Path) -> dict[str, reading.Summed]:
    """Return the size and the SHA-256 of each file of a checkpoint, as its manifest has them.

    They are those of the loaded files only while nothing trains the run: otherwise ask the `State`.
    """
    file = path / "manifest.json"
    with storage(file):
        written = read_file(file, MAX_JSON)
    manifest = reading.parsed(written, file, reading.MANIFEST)
    # A manifest has one spelling, so no byte of it can change unnoticed.
    if written != _manifest(manifest) or sorted(manifest) != sorted(_FILES):
        raise StorageError(f"{file}: not as it was written")
    return manifest


def contents(file: Path, expected: reading.Summed) -> bytes:
    """Return the content of a file that has this size and sum."""
    with as_summed(file, expected) as data:
        return data.read(expected["bytes"])


@contextlib.contextmanager
def as_summed(file: Path, expected: reading.Summed) -> Iterator[BufferedReader]:
    """Give the block a file that has this size and sum. Raises `StorageError` for another one."""
    with opened(file, MAX_JSON if file.suffix == ".json" else MAX_TENSORS) as data:
        size = os.fstat(data.fileno()).st_size
        if size != expected["bytes"]:
            raise StorageError(f"{file}: {size:,} bytes, not {expected['bytes']:,}")
        # Summed piece by piece: a file of a false size must not fill the memory first.
        actual = hashlib.file_digest(data, "sha256").hexdigest()
        if actual != expected["sha256"]:
            wanted = expected["sha256"]
            raise StorageError(f"{file}: SHA-256 is {actual[:12]}..., not {wanted[:12]}...")
        data.seek(0)
        yield data


def _manifest(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode()


def tensor_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return tensors by name as safetensors, with texts by name in the header."""
    # safetensors wants contiguous tensors that share no memory; channels-last ones are neither.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata)


def tensors(data: bytes, name: Path) -> dict[str, Tensor]:
    """Return the tensors in the bytes of a safetensors file. Raises `StorageError` for others."""
    require_header(data[:8], name)
    try:
        return safetensors.torch.load(data)
    except Exception as error:
        raise StorageError(f"{name}: {type(error).__name__}: {error}") from error


def whole(file: Path, most: int = MAX_TENSORS) -> bytes:
    """Return a safetensors file of at most `most` bytes, all of which its header describes.

    A file of a false size must not fill the memory first. Raises `OSError` and `StorageError`.
    """
    with opened(file, most) as data:
        require_header(data.read(8), file)
        try:
            # It maps the file and compares sizes; "pt" takes no path that is no text.
            with safetensors.safe_open(file, framework="np"):
                data.seek(0)
        except Exception as error:
            raise StorageError(f"{file}: not as it was written: {error}") from error
        return data.read(os.fstat(data.fileno()).st_size)


def require_header(first: bytes, name: Path) -> None:
    """Raise `StorageError` when the first 8 bytes of safetensors say that their header is huge."""
    if (header := int.from_bytes(first, "little")) > MAX_JSON:
        raise StorageError(f"{name}: a header of {header:,} bytes; at most {MAX_JSON:,} are read")


def under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `name.`, without this prefix."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
