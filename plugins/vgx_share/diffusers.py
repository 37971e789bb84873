"""The folder of an autoencoder as diffusers has it: `config.json` and safetensors.

Names and shapes of the weights are those of the parts. diffusers' images are in [-1, 1], those of
vgx in [0, 1]: the parts convert them, not the weights.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic import with_config as configured
from typing_extensions import TypedDict

import vgx
from vgx.runs import checkpoint
from vgx.runs.diffusers import (
    CONFIG,
    SUBFOLDER,
    WEIGHTS,
    Autoencoder,
    checked,
    fields_for,
    unlike,
)
from vgx.runs.exported import Scale
from vgx.sampling.model import Model

VERSION = "0.30.0"  # of diffusers, since which it has all these fields
SIZE = 64  # of images, when config.json does not say it
Side = Annotated[int, Field(ge=4, le=4096)]


@configured(ConfigDict(extra="allow"))
class Config(TypedDict, total=False):
    """Those fields of `config.json` that are no part's: the sizes."""

    in_channels: Annotated[int, Field(gt=0, le=256)]
    latent_channels: Annotated[int, Field(gt=0, lt=2**16)]
    sample_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]


_CONFIG = TypeAdapter(Config)


def files(model: Model, statistics: Scale) -> dict[str, bytes]:
    """Return the files of the folder `vae` by name; none if the networks are others.

    `statistics` has `mean` and `std` of the latents by channel, and `scaling_factor`.
    """
    recipe = model.recipe
    encoder, decoder = recipe.encoder, recipe.decoder
    if not (isinstance(encoder, vgx.Published) and isinstance(decoder, vgx.Published)):
        return {}
    image, latent = recipe.image, recipe.latent
    config = {**encoder.config(image, latent), **decoder.config(image, latent)}
    if other := unlike(encoder, config):
        text = f"no folder for diffusers: encoder and decoder have other {', '.join(other)}"
        warnings.warn(text, vgx.Notice, stacklevel=2)
    if other or fields_for(type(encoder), config) is None:
        return {}
    assert model.encoder is not None
    tensors = {**model.encoder.state_dict(), **model.decoder.state_dict()}
    scale = {name: value for name, value in _scale(statistics).items() if name in config}
    config |= {"_diffusers_version": VERSION, **scale}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return {
        f"{SUBFOLDER}/{CONFIG}": text.encode(),
        f"{SUBFOLDER}/{WEIGHTS}": checkpoint.tensor_bytes(tensors, {"format": "pt"}),
    }


def _scale(statistics: Scale) -> dict[str, Any]:
    """Return the fields of `config.json` for the scale of the latents.

    diffusers scales latents in one of two ways: z * scaling_factor, or, if there are a mean and a
    deviation, (z - latents_mean) * scaling_factor / latents_std. Both shall give latents of
    variance 1, so `latents_std` is the deviation by channel times the scaling factor.
    """
    factor, means, stds = 1.0, statistics.get("mean"), statistics.get("std", [])
    if "scaling_factor" in statistics:
        factor = statistics["scaling_factor"]
    else:
        text = "no stored latents, so the scaling factor for diffusers is not known; it says 1"
        warnings.warn(text, vgx.Notice, stacklevel=2)
    return {
        "scaling_factor": factor,
        **({"shift_factor": statistics["shift_factor"]} if "shift_factor" in statistics else {}),
        "latents_mean": means,
        "latents_std": [std * factor for std in stds] if means else None,
    }


# --- reading -------------------------------------------------------------------------------------


def fields(found: Autoencoder, registry: vgx.Registry) -> dict[str, Any]:
    """Return the fields of a recipe with the networks of a folder of diffusers.

    Raises `StorageError` for networks that no installed part is.
    """
    try:
        parts = {kind: _part(kind, found.config, registry) for kind in ("encoder", "decoder")}
        known = checked(found.config, _CONFIG)
    except vgx.StorageError as error:
        raise vgx.StorageError(f"{found.file}: {error}") from error
    return {
        "image": {"size": known.get("sample_size", SIZE), "channels": known.get("in_channels", 3)},
        "latent": [known.get("latent_channels", 4), 1, 1],  # `with_latent` knows its sides
        **parts,
    }


def with_latent(recipe: vgx.Recipe) -> vgx.Recipe:
    """Return the recipe with the sides of the latents that its encoder gives for its images."""
    assert isinstance(recipe.encoder, vgx.Published)
    factor = 2 ** recipe.encoder.halvings()
    sides = (recipe.image.height // factor, recipe.image.width // factor)
    latent = vgx.LatentSpec((recipe.latent.shape[0], *sides))
    return recipe.model_copy(update={"latent": latent})


def _part(kind: str, config: Mapping[str, Any], registry: vgx.Registry) -> dict[str, Any]:
    for _, part in registry.offers(kind):
        if (found := fields_for(part, config)) is not None:
            return {"type": part.type, **found}
    name = ascii(config.get("_class_name"))[:100]
    raise vgx.StorageError(f"_class_name: no installed {kind} is that of {name}")
