"""Autoencoders in folders of diffusers: `config.json` and safetensors, read with bounds.

Such a folder may come from anybody. Two files are read, each of bounded size. Which network a
`config.json` describes is known by the parts that are `Published`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError
from pydantic import with_config as configured
from torch import Tensor
from typing_extensions import TypedDict

from vgx.errors import StorageError
from vgx.files import read_file, storage
from vgx.output import short, visible
from vgx.parts.base import Component, components_in
from vgx.parts.kinds import Published
from vgx.runs import checkpoint
from vgx.runs.exported import Scale
from vgx.runs.reading import parsed

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
SUBFOLDER = "vae"  # of the folder of a whole diffusion model
MAX_CONFIG = 2**20  # bytes
MOST = 20_000  # tensors
LONGEST = 500  # characters in the name of a tensor
# The tensors of each network, by the first part of their names.
_OF = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}
# Names of attention in weights that were written before diffusers 0.13.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)")
_CONFIG = TypeAdapter(dict[str, Any])
T = TypeVar("T")


@configured(ConfigDict(extra="allow"))
class ScaleFields(TypedDict, total=False):
    """The fields of `config.json` for the scale of the latents."""

    latent_channels: int
    scaling_factor: FiniteFloat
    shift_factor: FiniteFloat | None
    latents_mean: list[FiniteFloat] | None
    latents_std: list[FiniteFloat] | None


_SCALE = TypeAdapter(ScaleFields)


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """What a folder of diffusers contains."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]  # named as in a run: encoder.*, decoder.*; in float32
    sha256: str  # of the file with the tensors
    file: Path  # config.json, for messages
    scale: Scale  # of the latents


def folder_of(place: Path) -> Path | None:
    """Return the folder with a `config.json` of diffusers: `place`, its `vae`, or none."""
    return next((f for f in (place, place / SUBFOLDER) if (f / CONFIG).is_file()), None)


def read(folder: Path) -> Autoencoder:
    """Return the autoencoder of a folder. Raises `StorageError` for what cannot be one."""
    file, weights = folder / CONFIG, folder / WEIGHTS
    with storage(file):
        config = parsed(read_file(file, MAX_CONFIG), file, _CONFIG)
    if not weights.exists():
        raise StorageError(f"{folder}: {why_not(each.name for each in folder.iterdir())}")
    with storage(weights):
        data = checkpoint.whole(weights)
    tensors = _named(checkpoint.tensors(data, weights), weights)
    try:
        scale = _scale(checked(config, _SCALE))
    except StorageError as error:
        raise StorageError(f"{file}: {error}") from error
    return Autoencoder(config, tensors, hashlib.sha256(data).hexdigest(), file, scale)


def checked(config: Mapping[str, Any], adapter: TypeAdapter[T]) -> T:
    """Return fields of `config.json` as the adapter has them. Raises `StorageError`."""
    try:
        return adapter.validate_python(config, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise StorageError(f"{place}: {first['msg']}") from None


def _scale(known: ScaleFields) -> Scale:
    """Return mean and deviation of the latents by channel, and both factors.

    `latents_std` is the deviation times the scaling factor: diffusers multiplies by both.
    """
    factor, shift = known.get("scaling_factor"), known.get("shift_factor")
    mean, std = known.get("latents_mean"), known.get("latents_std")
    if not factor or factor < 0:
        return {}
    scale: Scale = {"scaling_factor": factor}
    if shift is not None:
        scale["shift_factor"] = shift
    if mean and std and len(mean) == len(std) == known.get("latent_channels", 4):
        scale |= {"mean": mean, "std": [s / factor for s in std]}
    return scale


def why_not(names: Iterable[str]) -> str:
    """Return why a folder with files of these names, but without `WEIGHTS`, is not read."""
    there = {*names}
    if f"{WEIGHTS}.index.json" in there:
        return f"its weights are in several files; only {WEIGHTS} is read"
    if "diffusion_pytorch_model.bin" in there:
        return f"its weights are a pickle file, which is not read; it needs {WEIGHTS}"
    return f"it has {CONFIG} and no {WEIGHTS}"


def _named(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return weights in float32 by the names of a run."""
    if len(tensors) > MOST:
        raise StorageError(f"{file}: more than {MOST:,} tensors")
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        network = next((key for key, own in _OF.items() if name.startswith(own)), None)
        if network is None or not tensor.is_floating_point() or len(name) > LONGEST:
            shown = short(visible(name[:LONGEST]))
            raise StorageError(f"{file}: {shown} is no weight of an encoder or decoder")
        new = _OLD_NAME.sub(lambda found: _OLD[found[0]], name)
        named[f"{network}.{new}"] = tensor.float()
    return named


# --- the parts that are such networks -------------------------------------------------------------


def fields_for(part: type[Component], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields with which a part is a network of `config.json`; `None` if it never is."""
    return part.from_config(config) if issubclass(part, Published) else None


def unlike(part: Component, config: Mapping[str, Any]) -> list[str]:
    """Return the names of those fields in which a part is not the network of `config.json`."""
    own = part.model_dump(mode="json")
    wanted = fields_for(type(part), config) or {}
    return [name for name, value in wanted.items() if own[name] != value]


def require_like(
    networks: Iterable[Component], latent: int, config: Mapping[str, Any], where: str
) -> None:
    """Raise `StorageError` unless networks of a recipe are those of `config.json`.

    Not every difference shows in the shapes of weights. `latent` is the number of the latent's
    channels. A part that does not know the class of the networks is not compared; of parts inside
    of others each is.
    """
    other: list[str] = []
    lines: list[str] = []
    for part in components_in([*networks]):
        try:
            wanted, names = fields_for(type(part), config), unlike(part, config)
        except StorageError as error:
            raise StorageError(f"{where}: {error}") from error
        channels = config.get("latent_channels", latent)
        if wanted is not None and channels != latent and not other:
            other.append("latent")
            lines.append(f"latent: [{short(visible(str(channels)))}, height, width]")
        if wanted is not None and names:
            other.append(f"{part.kind}: {', '.join(names)}")
            fields = {"type": part.type, **wanted}
            flow = ", ".join(f"{name}: {_yaml(value)}" for name, value in fields.items())
            lines.append(f"{part.kind}: {{{flow}}}")
    if lines:
        message = f"{where}: not the networks of the recipe ({'; '.join(other)}); write instead"
        raise StorageError("\n".join([message, *lines]))


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
