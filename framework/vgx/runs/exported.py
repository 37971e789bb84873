"""Folders that `vgx export` writes: a trained model without its run, verified before it is used.

Such a folder may come from anybody. Only files with the names below are read, each of bounded size
and with the sum that `vgx.json` has of it. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Required

import torch
from pydantic import FailFast, Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from vgx.errors import StorageError
from vgx.files import read_file, storage
from vgx.output import short, visible
from vgx.recipe.yaml import MAX_BYTES
from vgx.runs import checkpoint
from vgx.runs.checkpoint import State
from vgx.runs.reading import Class, Count, Plugin, Summed, parsed

FORMAT = 1
ABOUT, CARD, RECIPE = "vgx.json", "README.md", "recipe.yaml"
MODEL, CODES, PRIOR = "model.safetensors", "codes.safetensors", "prior.safetensors"
NEEDED = (RECIPE, MODEL, CODES, PRIOR)  # what a model is loaded from, besides vgx.json
# All files that an exported folder can have.
NAMES = re.compile(
    r"vgx\.json|README\.md|recipe\.yaml|(model|codes|prior)\.safetensors|samples\.webp|"
    r"(encoder|decoder)\.onnx|vae/(config\.json|diffusion_pytorch_model\.safetensors)|"
    r"explorer/index\.html"
)
MAX_ABOUT = 2**22  # bytes of vgx.json, which names up to 10,000 classes


class Images(TypedDict):
    """The images of a model: their shape, and the values of black and white."""

    channels: Count
    height: Count
    width: Count
    range: tuple[FiniteFloat, FiniteFloat]


class Scale(TypedDict, total=False):
    """What is known of the values of a model's latents."""

    mean: Annotated[list[FiniteFloat], FailFast()]  # by channel
    std: Annotated[list[FiniteFloat], FailFast()]
    scaling_factor: FiniteFloat  # 1 / std over all channels
    shift_factor: FiniteFloat  # taken from latents before they are scaled, of an imported model


class Latents(Scale):
    """The latents of a model: their shape, and what is known of their values."""

    shape: Required[Annotated[list[Annotated[int, Field(gt=0, le=10**6)]], Field(max_length=3)]]


class About(TypedDict, total=False):
    """What an exported folder contains: `vgx.json`."""

    format: Required[Count]
    vgx: str
    name: str  # of the recipe
    step: Required[Count]
    averaged: bool  # whether the weights are averaged ones
    networks: list[str]
    images: Images
    latents: Required[Latents]
    classes: Annotated[list[Class], FailFast()]  # of the labels 0, 1, ...
    plugins: Annotated[list[Plugin], FailFast()]
    files: Required[dict[str, Summed]]  # all others


ABOUT_ADAPTER = TypeAdapter(About)
SCALE = TypeAdapter(Scale)


def is_exported(folder: Path) -> bool:
    """Return whether a folder is an exported model, and not a run."""
    return (folder / ABOUT).is_file() and not (folder / "checkpoints").is_dir()


def about(folder: Path) -> About:
    """Return what an exported folder contains. Raises `StorageError`."""
    file = folder / ABOUT
    with storage(file):
        return parse_about(read_file(file, MAX_ABOUT), file)


def parse_about(data: bytes, file: Path) -> About:
    """Return the content of a `vgx.json`. Raises `StorageError`, also for names that escape."""
    known = parsed(data, file, ABOUT_ADAPTER)
    if known["format"] > FORMAT:
        raise StorageError(f"{file}: written by a newer vgx; install that to read it")
    if odd := [name for name in known["files"] if not NAMES.fullmatch(name)]:
        raise StorageError(f"{file}: names {short(visible(odd[0]))}, which is no file of a model")
    if lost := [name for name in (RECIPE, MODEL) if name not in known["files"]]:
        raise StorageError(f"{file}: {lost[0]} is missing in it")
    return known


def limit(name: str) -> int:
    """Return how many bytes a file of an exported folder has at most."""
    return MAX_BYTES if name == RECIPE else checkpoint.MAX_TENSORS


def content(folder: Path, known: About, name: str) -> bytes:
    """Return a file of an exported folder. Raises `StorageError` when a byte of it is another."""
    expected = known["files"][name]
    with storage(folder / name):
        if expected["bytes"] > limit(name):
            size = f"{expected['bytes']:,} bytes; at most {limit(name):,} are read"
            raise StorageError(f"{folder / name}: {size}")
        return checkpoint.contents(folder / name, expected)


def load(folder: Path) -> State:
    """Return the tensors and numbers of an exported folder, as a checkpoint has them.

    Without `codes.safetensors` there are no stored latents. Raises `StorageError`.
    """
    known = about(folder)
    content(folder, known, RECIPE)
    model = checkpoint.tensors(content(folder, known, MODEL), folder / MODEL)
    latents = {"codes": torch.zeros(0, *known["latents"]["shape"])}  # [0, *Z]
    if CODES in known["files"]:
        latents = checkpoint.tensors(content(folder, known, CODES), folder / CODES)
    numbers = {"step": known["step"], "imported": True, "latents": scale_of(known["latents"])}
    return State(model, {}, latents, numbers, known["files"][MODEL]["sha256"])


def scale_of(known: Mapping[str, Any]) -> Scale:
    """Return what is known of the values of latents, without the rest. Raises `StorageError`."""
    names = ("mean", "std", "scaling_factor", "shift_factor")
    try:
        return SCALE.validate_python({name: known[name] for name in names if name in known})
    except ValidationError as error:
        first = short(visible(error.errors()[0]["msg"]))
        raise StorageError(f"mean and deviation of the latents: {first}") from None


def summed(data: bytes) -> Summed:
    """Return size and sum of a file, as `vgx.json` has them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
