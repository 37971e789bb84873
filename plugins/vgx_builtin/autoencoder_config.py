"""What `config.json` of diffusers says of its `AutoencoderKL` and `AutoencoderTiny`.

A file may come from anybody: each field that is used has its type and its bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import vgx

Width = Annotated[int, Field(gt=0, lt=2**16)]
Channels = Annotated[int, Field(gt=0, le=256)]
Count = Annotated[int, Field(gt=0, lt=100)]
Counts = Annotated[list[Annotated[int, Field(ge=0, lt=100)]], Field(min_length=1, max_length=10)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=10)]
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
KL, TINY = "AutoencoderKL", "AutoencoderTiny"
M = TypeVar("M", bound=BaseModel)


class KLConfig(BaseModel):
    """The fields of `AutoencoderKL`, with its defaults."""

    model_config = ConfigDict(strict=True)

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: list[str] = [DOWN]
    up_block_types: list[str] = [UP]
    block_out_channels: Widths = [64]
    layers_per_block: Count = 1
    act_fn: str = "silu"
    latent_channels: Width = 4
    norm_num_groups: Width = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


class TinyConfig(BaseModel):
    """The fields of `AutoencoderTiny`, with its defaults."""

    model_config = ConfigDict(strict=True)

    in_channels: Channels = 3
    out_channels: Channels = 3
    encoder_block_out_channels: Widths = [64, 64, 64, 64]
    decoder_block_out_channels: Widths = [64, 64, 64, 64]
    act_fn: str = "relu"
    upsample_fn: str = "nearest"
    latent_channels: Width = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: Counts = [1, 3, 3, 3]
    num_decoder_blocks: Counts = [3, 3, 3, 1]


def kl(config: Mapping[str, Any]) -> KLConfig | None:
    """Return the fields of an `AutoencoderKL`; `None` for another class.

    Raises `StorageError` for one that the parts of the type `autoencoder-kl` are not.
    """
    if config.get("_class_name") != KL:
        return None
    known = _read(KLConfig, config)
    count = len(known.block_out_channels)
    if known.act_fn != "swish":  # another name of the same
        _require(known, "act_fn", "silu")
    _require(known, "down_block_types", [DOWN] * count)
    _require(known, "up_block_types", [UP] * count)
    _require(known, "out_channels", known.in_channels)
    return known


def tiny(config: Mapping[str, Any]) -> TinyConfig | None:
    """Return the fields of an `AutoencoderTiny`; `None` for another class.

    Raises `StorageError` for one that the parts of the type `autoencoder-tiny` are not.
    """
    if config.get("_class_name") != TINY:
        return None
    known = _read(TinyConfig, config)
    width = known.encoder_block_out_channels[0]
    _require(known, "act_fn", "relu")
    _require(known, "upsample_fn", "nearest")
    _require(known, "upsampling_scaling_factor", 2)
    _require(known, "encoder_block_out_channels", [width] * len(known.num_encoder_blocks))
    width = known.decoder_block_out_channels[0]
    _require(known, "decoder_block_out_channels", [width] * len(known.num_decoder_blocks))
    _require(known, "out_channels", known.in_channels)
    return known


def _read(model: type[M], config: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise vgx.StorageError(f"{place}: {first['msg']}") from None


def _require(known: BaseModel, name: str, value: object) -> None:
    given = getattr(known, name)
    if given != value:
        raise vgx.StorageError(f"{name}: {ascii(given)[:100]}; only {value} is read")
