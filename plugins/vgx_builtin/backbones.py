"""Backbones of timm, with weights from the hub, from a file, or drawn from the seed."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin import hub
from vgx_builtin.files.image_files import IS_POINTER, POINTER, open_regular
from vgx_builtin.modules import pixels
from vgx_builtin.wrapping import output_on_black

MAX_HEADER = 2**20
"""The largest header of a safetensors file that is read, in bytes: some 8,000 tensors."""


def create(
    name: str, image: vgx.ImageSpec, *, pretrained: bool, weights: Path | None, **options: Any
) -> Any:
    """Return `timm.create_model(name, ...)` for images of this size.

    Raises `RecipeError` for an unknown name, a file that does not fit, or a backbone that takes no
    such images, `HubError` when pretrained weights are neither in the hub's cache nor to be
    fetched.
    """
    if pretrained and weights is not None:
        raise vgx.RecipeError(f"{name}: give either 'pretrained' or 'weights', not both")
    if weights is not None:
        check_file(weights)
    with hub.bounded() if pretrained else contextlib.nullcontext(), _quiet():
        import timm

        require_known(name)
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.fixed_input_size:
            square = image.height == image.width
            options["img_size"] = image.height if square else (image.height, image.width)
        if weights is not None:
            # This way also works with features_only and without a classifier.
            options["pretrained_cfg_overlay"] = {"file": str(weights)}
        start = pretrained or weights is not None
        try:
            model = timm.create_model(name, pretrained=start, in_chans=image.channels, **options)
            missing = [] if weights is None else _missing(model, name, image, options)
        except Exception as error:
            if pretrained and hub.is_hub_error(error):
                raise vgx.HubError(
                    f"backbone {name}: its pretrained weights are not cached and the hub can't be "
                    "reached; offline, a local file works: weights: FILE.safetensors"
                ) from error
            source = f" from {weights}" if weights else ""
            raise vgx.RecipeError(f"backbone {name}{source}: {error}") from error
        if "img_size" in options:
            _try(model, name, image)
    if missing:
        raise vgx.RecipeError(
            f"weights: {weights}: not the weights of {name}: "
            f"{len(missing)} tensors are missing in it, such as {missing[0]}"
        )
    return model


def reduction(name: str) -> int:
    """Return how many pixels a side a place of a backbone's last feature map stands for.

    Raises `RecipeError` for a name that timm does not know, and for a backbone without such a map.
    """
    import timm
    import torch

    require_known(name)
    with torch.device("meta"):  # nothing is computed
        try:
            model = timm.create_model(name, features_only=True, out_indices=(-1,))
        except Exception as error:  # timm raises several kinds
            raise vgx.RecipeError(f"backbone {name}: it gives no feature maps: {error}") from error
        return int(model.feature_info.reduction()[-1])


def require_known(name: str) -> None:
    """Raise `RecipeError` for a name that timm does not know."""
    import timm

    if not timm.is_model(name):
        close = vgx.near(name, timm.list_models())
        hint = f"; did you mean '{close}'?" if close else ""
        raise vgx.RecipeError(f"backbone: timm has no model '{name}'{hint}")


def _try(model: Any, name: str, image: vgx.ImageSpec) -> None:
    """Raise `RecipeError` for a backbone that was made for images that it cannot take."""
    try:
        output_on_black(model, image)
    except (RuntimeError, AssertionError) as error:
        what = f"backbone {name} takes no images of {pixels(image)}: {error}"
        raise vgx.RecipeError(f"{what}; use another size or another backbone") from error


def check_file(weights: Path) -> None:
    """Raise `RecipeError` for a file that is none of weights, or that takes long to read."""
    if not weights.is_file():
        raise vgx.RecipeError(f"weights: {weights}: there is no such file")
    if weights.suffix != ".safetensors":
        raise vgx.RecipeError(
            f"weights: {weights}: only .safetensors files are read, never pickles"
        )
    try:
        with open_regular(weights, str(weights)) as file:
            pointer = file.read(len(POINTER)) == POINTER
            file.seek(0)
            size = int.from_bytes(file.read(8), "little")
            header = file.read(min(size, MAX_HEADER))
    except vgx.DataError as error:
        raise vgx.RecipeError(f"weights: {error}") from error
    if pointer:
        raise vgx.RecipeError(f"weights: {weights}: {IS_POINTER}")
    if size > MAX_HEADER:
        message = f"a header of {size:,} bytes; at most {MAX_HEADER:,} are read"
        raise vgx.RecipeError(f"weights: {weights}: {message}")
    with contextlib.suppress(ValueError, RecursionError):  # timm says what is wrong with these
        if not all(map(str.isprintable, json.loads(header))):
            raise vgx.RecipeError(f"weights: {weights}: names of tensors that can't be printed")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep timm from printing the names of tensors that it does not need."""
    log = logging.getLogger("timm.models._builder")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _missing(model: Any, name: str, image: vgx.ImageSpec, options: dict[str, Any]) -> list[str]:
    """Return the names of the tensors that the weights' file lacks; timm does not report them.

    They are drawn at random, so they differ in a second model from the same file.
    """
    import timm
    import torch

    with torch.random.fork_rng(devices=()):
        twin = timm.create_model(name, pretrained=True, in_chans=image.channels, **options)
    other = twin.state_dict()
    return [key for key, value in model.state_dict().items() if not torch.equal(value, other[key])]


def statistics(backbone: Any, image: vgx.ImageSpec) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel in the backbone's pretraining."""
    config = backbone.pretrained_cfg
    mean, std = list(config.get("mean", (0.5,) * 3)), list(config.get("std", (0.5,) * 3))
    if len(mean) != image.channels:
        mean, std = [sum(mean) / len(mean)] * image.channels, [sum(std) / len(std)] * image.channels
    return mean, std
