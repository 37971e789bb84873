"""The folder of an autoencoder as diffusers has it: `config.json` and safetensors.

Names and shapes of the weights are those of the parts of the type `autoencoder-kl`. diffusers'
images are in [-1, 1], those of vgx in [0, 1]: the parts convert them, not the weights.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter
from pydantic import with_config as configured
from torch import Tensor
from typing_extensions import TypedDict

import vgx
from vgx.files import read_file, storage
from vgx.output import short, visible
from vgx.runs import checkpoint
from vgx.runs.exported import Scale
from vgx.runs.reading import parsed
from vgx.sampling.model import Model

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
TYPE = "autoencoder-kl"  # of the parts that fit
MAX_CONFIG = 2**20  # bytes
MOST = 20_000  # tensors
# The network before and after the latent, as the parts have them.
_OF = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}
# Names of attention in weights that were written before diffusers 0.13.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Width = Annotated[int, Field(gt=0, lt=2**16)]
Side = Annotated[int, Field(ge=4, le=4096)]


@configured(ConfigDict(extra="allow"))
class Config(TypedDict, total=False):
    """Those fields of diffusers' `config.json` that say which networks they are."""

    _class_name: str
    in_channels: Annotated[int, Field(gt=0, le=256)]
    out_channels: Annotated[int, Field(gt=0, le=256)]
    down_block_types: list[str]
    up_block_types: list[str]
    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=10)]
    layers_per_block: Annotated[int, Field(gt=0, lt=100)]
    act_fn: str
    latent_channels: Width
    norm_num_groups: Width
    sample_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
    scaling_factor: FiniteFloat
    shift_factor: FiniteFloat | None
    latents_mean: list[FiniteFloat] | None
    latents_std: list[FiniteFloat] | None
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool


_CONFIG = TypeAdapter(Config)
_DEFAULTS: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": [64], "layers_per_block": 1,
    "act_fn": "silu", "latent_channels": 4, "norm_num_groups": 32, "sample_size": 32,
    "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
}  # fmt: skip


def files(model: Model, statistics: Scale) -> dict[str, bytes]:
    """Return the files of the folder `vae` by name; none if the networks are others.

    `statistics` has `mean` and `std` of the latents by channel, and `scaling_factor`.
    """
    encoder: Any = model.recipe.encoder
    decoder: Any = model.recipe.decoder
    if encoder is None or encoder.type != TYPE or decoder.type != TYPE:
        return {}
    assert model.encoder is not None
    for field in ("widths", "blocks", "groups", "attention"):
        ours, theirs = getattr(encoder, field), getattr(decoder, field)
        if ours != (theirs[::-1] if field == "widths" else theirs):
            text = f"no folder for diffusers: encoder and decoder have other {field}"
            warnings.warn(text, vgx.Notice, stacklevel=2)
            return {}
    tensors = {**model.encoder.state_dict(), **model.decoder.state_dict()}
    config = _config(model.recipe, encoder, decoder, statistics)
    return {
        f"vae/{CONFIG}": (json.dumps(config, indent=2) + "\n").encode(),
        f"vae/{WEIGHTS}": checkpoint.tensor_bytes(tensors, {"format": "pt"}),
    }


def _config(recipe: vgx.Recipe, encoder: Any, decoder: Any, statistics: Scale) -> dict[str, Any]:
    """Return the fields of diffusers' `config.json`.

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
    count = len(encoder.widths)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.30.0",  # since which it has all these fields
        "act_fn": "silu",
        "block_out_channels": [*encoder.widths],
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "force_upcast": True,
        "in_channels": recipe.image.channels,
        "latent_channels": recipe.latent.shape[0],
        "latents_mean": means,
        "latents_std": [std * factor for std in stds] if means else None,
        "layers_per_block": encoder.blocks,
        "mid_block_add_attention": encoder.attention,
        "norm_num_groups": encoder.groups,
        "out_channels": recipe.image.channels,
        "sample_size": recipe.image.size
        if isinstance(recipe.image.size, int)
        else [recipe.image.height, recipe.image.width],
        "scaling_factor": factor,
        "shift_factor": statistics.get("shift_factor"),
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "use_post_quant_conv": decoder.quant_conv,
        "use_quant_conv": encoder.quant_conv,
    }


# --- reading -------------------------------------------------------------------------------------


def is_vae(folder: Path) -> bool:
    """Return whether a folder has the two files of an autoencoder of diffusers."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Return the fields of a recipe, the weights by network and name, and latent statistics.

    Raises `StorageError` for files that are damaged, too large, or of networks that the parts of
    the type `autoencoder-kl` are not.
    """
    file = folder / CONFIG
    with storage(file):
        given = parsed(read_file(file, MAX_CONFIG), file, _CONFIG)
    config = {**_DEFAULTS, **given}
    _require_known(file, config)
    with storage(folder / WEIGHTS):
        data = read_file(folder / WEIGHTS, checkpoint.MAX_TENSORS)
    tensors = checkpoint.tensors(data, folder / WEIGHTS)
    if len(tensors) > MOST:
        raise vgx.StorageError(f"{folder / WEIGHTS}: more than {MOST:,} tensors")
    widths = config["block_out_channels"]
    shared = {
        "type": TYPE, "blocks": config["layers_per_block"], "groups": config["norm_num_groups"],
        "attention": config["mid_block_add_attention"],
    }  # fmt: skip
    fields = {
        "image": {"size": config["sample_size"], "channels": config["in_channels"]},
        "latent": latent_of(config["sample_size"], config["latent_channels"], len(widths)),
        "encoder": {**shared, "widths": widths, "quant_conv": config["use_quant_conv"]},
        "decoder": {**shared, "widths": widths[::-1], "quant_conv": config["use_post_quant_conv"]},
    }
    return fields, _by_network(tensors, folder / WEIGHTS), _statistics(config)


def _require_known(file: Path, config: dict[str, Any]) -> None:
    """Raise `StorageError` for networks that the parts are not."""
    count = len(config["block_out_channels"])
    wanted = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "out_channels": config["in_channels"],
    }
    for name, value in wanted.items():
        if config.get(name) != value:
            given = short(visible(str(config.get(name))))
            raise vgx.StorageError(f"{file}: {name}: {given}; only {value} is read")


def _by_network(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return the weights in float32, named as in a run: encoder.*, decoder.*."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        network = next((key for key, own in _OF.items() if name.startswith(own)), None)
        if network is None or not tensor.is_floating_point():
            raise vgx.StorageError(f"{file}: {short(visible(name))} is no weight of AutoencoderKL")
        new = re.sub(
            r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)",
            lambda found: _OLD[found[0]],
            name,
        )
        named[f"{network}.{new}"] = tensor.float()
    return named


def _statistics(config: dict[str, Any]) -> dict[str, Any]:
    """Return mean and deviation by channel, and both factors; what `_config` made of them."""
    factor, mean, std = (
        config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std")
    )
    if not factor or factor < 0:
        return {}
    channels, shift = config["latent_channels"], config.get("shift_factor")
    factors = {"scaling_factor": factor, **({} if shift is None else {"shift_factor": shift})}
    if mean and std and len(mean) == len(std) == channels:
        return {"mean": mean, "std": [s / factor for s in std], **factors}
    return factors


def latent_of(size: int | list[int], channels: int, widths: int) -> list[int]:
    """Return the shape of the latents of images: n widths halve them n - 1 times."""
    sides = [size, size] if isinstance(size, int) else size
    return [channels, *(side // 2 ** (widths - 1) for side in sides)]
