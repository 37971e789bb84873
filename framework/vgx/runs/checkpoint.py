"""Checkpoints: data, never code, committed by a rename and verified before they are believed.

A checkpoint is a directory of safetensors and JSON with a manifest of sizes and SHA-256 sums. It is
written beside its final place, flushed, renamed, and only then are older ones pruned.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vgx.errors import Notice, StorageError
from vgx.files import flush_directory, refusal
from vgx.runs.directory import Run

FORMAT = 1
# Largest size in bytes of JSON, and of the JSON that safetensors begin with: no run's are larger.
MAX_JSON = 16 * 2**20
_NAME = re.compile(r"step-([0-9]{8,18})(\.old)?")
_TENSORS = ("model", "optimizer", "latents")
_FILES = (*(f"{name}.safetensors" for name in _TENSORS), "state.json")


@dataclass(frozen=True)
class State:
    """Everything that a run needs to go on: tensors by name, and plain numbers."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    latents: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON; "step" among them


def save(run: Run, state: State, keep: int, spare: int | None = None) -> Path:
    """Commit a checkpoint of the state's step and prune all but the newest `keep`.

    That of the step `spare`, the best one, stays too.

    Raises `StorageError`; the checkpoints that were there are untouched then.
    """
    final = run.checkpoints / f"step-{state.numbers['step']:08}"
    temporary = _hidden(final)
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
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        flush_directory(temporary)
        if final.exists():  # the same step once more; the old one can be loaded all the while
            aside = final.with_name(f"{final.name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        temporary.rename(final)
        flush_directory(run.checkpoints)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        why = refusal(error, run.path, sum(map(len, files.values())))
        raise StorageError(f"{final}: not saved: {why}; {last_good(run)}") from error
    # A newer one than this was damaged, or the run would have gone on from it.
    there = committed(run)
    kept = [path for path in there[there.index(final) :] if not path.suffix][:keep]
    for path in there:
        if path not in kept and (path.suffix or _step(path) != spare):
            with contextlib.suppress(OSError):  # it is gone for readers before it is in pieces
                shutil.rmtree(path.rename(_hidden(path)))
    return final


def load(run: Run, before: int | None = None) -> tuple[Path, State]:
    """Return the newest checkpoint whose files are what its manifest says.

    With `before`, the newest one of an earlier step than that. A damaged one that is passed over is
    told in a `Notice`. Raises `StorageError` when none is left, naming what is wrong with each.
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
        raise StorageError(f"{run.path}: the checkpoint of step {step:,} is gone")
    return path, _read(path)


def best(run: Run, name: str, better: str) -> int | None:
    """Return the step at which a number of the log's metrics was best, the first of equal ones."""
    found = [
        (line["metrics"][name], line["step"])
        for line in run.read_log()
        if name in line.get("metrics", ())
    ]
    if not found:
        return None
    sign = -1 if better == "higher" else 1
    step: int = min(found, key=lambda pair: (sign * pair[0], pair[1]))[1]
    return step


def committed(run: Run) -> list[Path]:
    """Return the checkpoints that were committed, newest first; nobody has looked into them."""
    found = [path for path in run.checkpoints.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (-_step(path), path.suffix))


def last_good(run: Run) -> str:
    """Say which checkpoint a run would go on from."""
    last = next(iter(committed(run)), None)
    return f"the last good checkpoint is {last.name}" if last else "there is no checkpoint yet"


def _step(path: Path) -> int:
    return int(path.name.removesuffix(".old").removeprefix("step-"))


def _hidden(path: Path) -> Path:
    """Return a name beside `path` that no reader looks at, and that the next start removes."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def _read(path: Path) -> State:
    try:
        files = _verified(path)
        numbers = json.loads(files["state.json"])
        if numbers.pop("format") > FORMAT:
            raise StorageError(f"{path}: written by a newer vgx; install that to go on")
        if numbers["step"] != _step(path):
            raise StorageError(f"{path}: holds step {numbers['step']}; it was renamed")
        model, optimizer, latents = (tensors(files[name], path / name) for name in _FILES[:3])
        return State(model, optimizer, latents, numbers)
    except StorageError:
        raise
    # Whatever a damaged file makes a parser raise, the answer is the same: not this one.
    except Exception as error:
        raise StorageError(f"{path}: {type(error).__name__}: {error}") from error


def _verified(path: Path) -> dict[str, bytes]:
    """Return a checkpoint's files. Raises `StorageError` for what is not as its manifest says."""
    written = _contents(path / "manifest.json")
    manifest = json.loads(written)
    # There is one way to write a manifest, so no byte of it can change unseen.
    if written != _manifest(manifest) or sorted(manifest) != sorted(_FILES):
        raise StorageError(f"{path / 'manifest.json'}: not as it was written")
    there = {inner.name for inner in path.iterdir()} - {"manifest.json"}
    if odd := sorted(there ^ set(_FILES)):
        word = "not of this checkpoint" if odd[0] in there else "missing"
        raise StorageError(f"{path / odd[0]}: {word}")
    files = {}
    for name, expected in manifest.items():
        limit = MAX_JSON if name.endswith(".json") else None
        files[name] = _contents(path / name, expected["bytes"], limit)
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != expected["sha256"]:
            raise StorageError(
                f"{path / name}: SHA-256 is {actual[:12]}..., not {expected['sha256'][:12]}..."
            )
    return files


def _contents(path: Path, size: int | None = None, limit: int | None = MAX_JSON) -> bytes:
    """Read a regular file of the size that is expected, and of the size that can be."""
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode):
        raise StorageError(f"{path}: not a regular file")
    if size is not None and about.st_size != size:
        raise StorageError(f"{path}: {about.st_size:,} bytes, not {size:,}")
    if limit is not None and about.st_size > limit:
        raise StorageError(f"{path}: {about.st_size:,} bytes; at most {limit:,} are read")
    return path.read_bytes()


def _manifest(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode()


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors by name as safetensors."""
    # safetensors wants contiguous tensors that share no memory; channels-last ones are neither.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain)


def tensors(data: bytes, name: Path) -> dict[str, Tensor]:
    """Return the tensors that safetensors hold. Raises `StorageError` for anything else."""
    header = int.from_bytes(data[:8], "little")
    if header > MAX_JSON:
        raise StorageError(f"{name}: a header of {header:,} bytes; at most {MAX_JSON:,} are read")
    try:
        return safetensors.torch.load(data)
    except Exception as error:
        raise StorageError(f"{name}: {type(error).__name__}: {error}") from error


def under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one network, without its name before theirs."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
