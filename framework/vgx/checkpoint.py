"""Checkpoints: data, never code, committed by a rename and verified before they are believed.

A checkpoint is a directory of safetensors and JSON with a manifest of sizes and SHA-256 sums. It is
written beside its final place, flushed, renamed, and only then are older ones pruned.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vgx.errors import StorageError
from vgx.rundir import Run

FORMAT = 1
_NAME = re.compile(r"step-(\d+)")
_TENSORS = ("model", "optimizer", "latents")


@dataclass(frozen=True)
class State:
    """Everything that a run needs to go on: tensors by name, and plain numbers."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    latents: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON; "step" among them


def save(run: Run, state: State, keep: int) -> Path:
    """Commit a checkpoint of the state's step and prune all but the newest `keep`.

    Raises `StorageError`; the checkpoints that were there are untouched then.
    """
    final = run.checkpoints / f"step-{state.numbers['step']:08}"
    temporary = run.checkpoints / f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    files = {f"{name}.safetensors": tensor_bytes(getattr(state, name)) for name in _TENSORS}
    files["state.json"] = json.dumps({"format": FORMAT, **state.numbers}, indent=1).encode()
    manifest = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    try:
        temporary.mkdir()
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _flush_directory(temporary)
        if final.exists():  # the same step once more, after a resume
            shutil.rmtree(final)
        temporary.rename(final)
        _flush_directory(run.checkpoints)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = next(iter(_named(run)), None)
        kept = f"the last good checkpoint is {last.name}" if last else "there is no checkpoint yet"
        message = f"{final}: not saved: {error.strerror or error}; {kept}"
        raise StorageError(message) from error
    # A newer one than this was damaged, or the run would have gone on from it.
    committed = _named(run)
    place = committed.index(final)
    for path in [*committed[:place], *committed[place + keep :]]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def load(run: Run) -> tuple[Path, State]:
    """Return the newest checkpoint whose files are what its manifest says.

    Raises `StorageError` when there is none, naming what is wrong with each.
    """
    wrong = []
    for path in _named(run):
        try:
            return path, _read(path)
        except StorageError as error:
            wrong.append(str(error))
    detail = "; ".join(wrong[:3]) if wrong else "none was saved"
    raise StorageError(f"{run.path}: no checkpoint to load: {detail}")


def _named(run: Run) -> list[Path]:
    """Committed checkpoints, newest first."""
    found = [
        (int(m[1]), p) for p in run.checkpoints.glob("step-*") if (m := _NAME.fullmatch(p.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def _read(path: Path) -> State:
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        files = {name: (path / name).read_bytes() for name in manifest}
        for name, expected in manifest.items():
            actual = hashlib.sha256(files[name]).hexdigest()
            if actual != expected["sha256"]:
                raise StorageError(
                    f"{path / name}: SHA-256 is {actual[:12]}..., not {expected['sha256'][:12]}..."
                )
        numbers = json.loads(files["state.json"])
        if numbers.pop("format") != FORMAT:
            raise StorageError(f"{path}: written by a newer vgx; install that to go on")
        model, optimizer, latents = (
            safetensors.torch.load(files[f"{name}.safetensors"]) for name in _TENSORS
        )
        return State(model, optimizer, latents, numbers)
    except StorageError:
        raise
    # Whatever a damaged file makes a parser raise, the answer is the same: not this one.
    except Exception as error:
        raise StorageError(f"{path}: {type(error).__name__}: {error}") from error


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors by name as safetensors."""
    # safetensors wants contiguous tensors that share no memory; channels-last ones are neither.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain)


def tensors(data: bytes, name: Path) -> dict[str, Tensor]:
    """Return the tensors that safetensors hold. Raises `StorageError` for anything else."""
    try:
        return safetensors.torch.load(data)
    except Exception as error:
        raise StorageError(f"{name}: {type(error).__name__}: {error}") from error


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
