"""The codes of images, as the final encoder gives them.

Letters: n images in a piece, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vgx import __version__
from vgx.data.batches import as_images
from vgx.data.store import Store, name_of
from vgx.data.stream import StreamedImages
from vgx.errors import RecipeError
from vgx.parts.kinds import Dataset, Indexed, Prior, Quantising
from vgx.parts.values import CodeSpec
from vgx.sampling.model import CHUNK, Model
from vgx.second.folder import Codes, write_latents
from vgx.step import Gaussian, Posterior


def codes_of(posterior: Posterior) -> Codes:
    """Return the codes of posteriors: latents, and deviations or indices where there are some."""
    codes: Codes = {"latents": posterior.mean}
    if isinstance(posterior, Gaussian):
        codes["deviations"] = (posterior.logvar / 2).exp()
    if isinstance(posterior, Indexed):
        codes["indices"] = posterior.indices
    return codes


def spec_of(part: Prior, shape: tuple[int, ...] | None, values: int, classes: int) -> CodeSpec:
    """Return what a prior learns: codes of this shape, with mean 0 and deviation 1 for now.

    An index takes `values` values. Raises `RecipeError` for a shape that is None: there are no
    such codes.
    """
    if shape is None:
        needs = "indices, which only an encoder with a codebook gives: vgx parts encoder"
        raise RecipeError(f"prior {part.type}: it learns {needs}")
    channels = shape[0] if part.of == "latents" else 0
    values = values if part.of == "indices" else 0
    return CodeSpec(shape, values, classes, (0.0,) * channels, (1.0,) * channels)


def values_of(encoder: nn.Module) -> int:
    """Return how many values an index of an encoder can take; 0 without a codebook."""
    return encoder.codes if isinstance(encoder, Quantising) else 0


def write_codes(
    model: Model, store: Store, rows: NDArray[np.int64], dataset: Dataset, folder: Path,
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Encode some images of a store, in their order, and write their codes as a new folder.

    Raises `RecipeError` when the model has no encoder, or gives numbers that are not finite.
    """
    recipe, encoder = model.recipe, model.encoder
    if encoder is None:
        raise RecipeError(f"{recipe.name} has no encoder, so images have no latents")
    about: dict[str, Any] = {
        "vgx": __version__,
        "shape": [*recipe.latent.shape],
        "model": {"name": recipe.name, "step": model.step, "sha256": model.sha256},
        "data": {"dataset": name_of(dataset), "content": store.content},
    }
    if store.labels is not None:
        about["classes"] = [{"name": name, "count": n} for name, n in store.classes(store.image)]
    images, device = store.images, model.codes.device

    @torch.no_grad()
    def pieces() -> Iterator[Codes]:
        for some in np.array_split(rows, math.ceil(len(rows) / CHUNK)):
            labels = None if store.labels is None else torch.from_numpy(store.labels[some])
            codes = codes_of(model.posterior(as_images(images[some], device), labels))
            if not all(values.isfinite().all() for values in codes.values()):
                raise RecipeError(f"{recipe.name} encodes an image to numbers that are not finite")
            about["deviations"] = "deviations" in codes
            if "indices" in codes:
                shape, values = [*codes["indices"].shape[1:]], values_of(encoder)
                about.update(indices=shape, codes=values)
            # Of streamed images others may stand in their place.
            index = images.standing(some) if isinstance(images, StreamedImages) else some
            codes["index"] = torch.from_numpy(index)
            if labels is not None:
                codes["labels"] = labels
            advance(len(some))
            yield codes

    write_latents(folder, pieces(), about)
