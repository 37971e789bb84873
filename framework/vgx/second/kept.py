"""What a prior learned, as a file with a sum of its own: in a run, or in an exported model.

The file may come from anybody. It is bounded and verified, and holds tensors alone; the text about
it is one of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn
from typing_extensions import TypedDict

from vgx import rng
from vgx.engine.memory import MemoryLimit
from vgx.engine.surroundings import untouched
from vgx.errors import StorageError
from vgx.files import storage
from vgx.parts.kinds import Prior
from vgx.parts.values import CodeSpec, LatentSpec
from vgx.recipe.model import Recipe
from vgx.runs import exported, summed
from vgx.runs.checkpoint import OTHER_VERSION, under, whole
from vgx.runs.reading import Amount, Count, parsed

FORMAT = 1
FOLDER, FILE = "prior", exported.PRIOR  # of a run
LONGER = ("steps",)  # fields of a prior that may change when its training goes on
_OF = "prior of vgx"
_ABOUT = "about"  # the tensor of bytes that are JSON


class About(TypedDict):
    """What a prior was trained on, and how far."""

    format: Count
    model_step: Count
    model_sha256: str  # of the model.safetensors whose encoder gave the codes
    settings: dict[str, Any]  # the part, without `LONGER`
    shape: Annotated[list[Annotated[int, Field(gt=0, lt=10**7)]], Field(max_length=4)]
    codes: Annotated[int, Field(ge=0, lt=10**7)]
    classes: Annotated[int, Field(ge=0, le=10**6)]
    steps: Count  # that are done
    seconds: Amount  # that they took


_ADAPTER = TypeAdapter(About)


@dataclass(frozen=True, eq=False)
class Kept:
    """A prior's file: its tensors by name, and what they are of."""

    about: About
    tensors: dict[str, Tensor]  # average.*, and in a run network.* and optimizer.*


def settings_of(part: Prior) -> dict[str, Any]:
    """Return the fields of a prior without those that may change when its training goes on."""
    return part.model_dump(mode="json", exclude={*LONGER})


def packed(kept: Kept) -> bytes:
    """Return the content of the file."""
    text = json.dumps(kept.about, ensure_ascii=False).encode()
    about = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return summed.packed({**kept.tensors, _ABOUT: about}, _OF)


def unpacked(data: bytes, file: Path) -> Kept:
    """Return what `packed` was given. Raises `StorageError` when a byte of it is another."""
    tensors = summed.unpacked(data, file, _OF)
    text = tensors.pop(_ABOUT, torch.zeros(0))
    if text.dtype != torch.uint8 or text.dim() != 1:
        raise StorageError(f"{file}: no prior of vgx")
    about = parsed(text.numpy().tobytes(), file, _ADAPTER)
    if about["format"] > FORMAT:
        raise StorageError(f"{file}: written by a newer vgx; install that to read it")
    return Kept(about, tensors)


def of_model(kept: Kept, sha256: str) -> Kept:
    """Return what samplers need of a prior, as that of the same model in a file with this sum."""
    averaged = {f"average.{name}": t for name, t in under(kept.tensors, "average").items()}
    return Kept({**kept.about, "model_sha256": sha256}, averaged)


def read(run: Path) -> Kept | None:
    """Return the prior of a run or of an exported folder; None if it has none.

    Raises `StorageError`.
    """
    if exported.is_exported(run):
        known, file = exported.about(run), run / FILE
        if FILE not in known["files"]:
            return None
        return unpacked(exported.content(run, known, FILE), file)
    file = run / FOLDER / FILE
    if not file.exists():
        return None
    with storage(file):
        return unpacked(whole(file), file)


def build(part: Prior, latent: LatentSpec, spec: CodeSpec, seed: int) -> nn.Module:
    """Build a prior's network. Its first weights are drawn with a key of their own."""
    with rng.ambient(seed, "weights of the prior"), MemoryLimit("prior"), untouched(part):
        return part.build(latent, spec)


def load(run: Path, recipe: Recipe, sha256: str) -> nn.Module | None:
    """Return the averaged network of the recipe's prior; None when there is none yet.

    Raises `StorageError` when its file is damaged, is of other settings, or when the prior was
    trained on the codes of another model than that with this sum.
    """
    part = recipe.prior
    if part is None or (kept := read(run)) is None:
        return None
    about = kept.about
    if about["model_sha256"] != sha256:
        was = f"the prior was trained on the codes of step {about['model_step']:,}"
        raise StorageError(f"{was}, and this is another model")
    if about["settings"] != settings_of(part):
        raise StorageError("the prior was trained with other settings than the recipe has")
    channels = about["shape"][0] if part.of == "latents" and about["shape"] else 0
    spec = CodeSpec(
        tuple(about["shape"]), about["codes"], about["classes"],
        (0.0,) * channels, (1.0,) * channels,  # the state has the true ones
    )  # fmt: skip
    network = build(part, recipe.latent, spec, recipe.train.seed)
    try:
        network.load_state_dict(under(kept.tensors, "average"))
    except RuntimeError as error:
        message = f"{FILE}: does not fit the prior of the recipe: {error}\n{OTHER_VERSION}"
        raise StorageError(message) from error
    return network.eval().requires_grad_(False)
