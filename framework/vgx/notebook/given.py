"""Images that people give: a folder, files, PIL images, arrays, tensors.

Letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vgx.data.batches import as_images
from vgx.data.classes import label_called, listed, names_of
from vgx.data.peek import peek as decoded
from vgx.data.peek import spread
from vgx.data.store import open_source
from vgx.errors import DataError, RecipeError, noticing
from vgx.files import open_regular, user_path
from vgx.notebook.images import Images
from vgx.parts.registry import Registry
from vgx.parts.values import ImageSpec
from vgx.recipe.load import AnyRecipe, load_recipe, with_part
from vgx.recipe.model import Recipe
from vgx.recipe.places import dataset_at

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats of pixels that Pillow reads: no programs (EPS), no metafiles."""
MAX_PIXELS = 2**26  # of an image file: 8,192 x 8,192

Given = str | Path | Image.Image | NDArray[Any] | Tensor | Images


def peek(recipe: AnyRecipe, n: int = 64) -> Images:
    """Return at most n images of a recipe's data set, evenly chosen, as the networks get them.

    `recipe` is what `vgx.load_recipe` takes. Nothing is stored or trained.
    """
    loaded, notices = load_recipe(recipe), list[str]()
    with noticing(notices):
        source, new = open_source(loaded.dataset, loaded.image)
        skip_bad = loaded.dataset.tolerated is not None
        rows = spread(len(source), n)
        store = decoded(source, loaded.image, n, rows, skip_bad=skip_bad)
    about = f"{loaded.dataset.type}, {len(source):,} in all"
    names = store.names or names_of(source, loaded.image)
    known = () if store.labels is None else tuple(_called(names, n) for n in store.labels[:n])
    images = as_images(_all(store.images), "cpu")
    return Images(images, about=about, notices=(*new, *notices), classes=known)


def _called(names: Sequence[str], label: Any) -> str:
    return names[label] if names else str(label)


Found = tuple[Tensor, Sequence[str | None]]  # images [N, C, H, W], and their classes if known


def read(given: Given | Sequence[Given], recipe: Recipe, registry: Registry, n: int) -> Found:
    """Return at most n images [N, C, H, W] in the size of a recipe, on the CPU, and their classes.

    A folder, an archive and the name of a data set of the hub are opened as `--data` opens them.
    The class of an image is the name that its data set gives it, or None. Raises `DataError` for
    what is no image.
    """
    if n < 1:
        raise DataError(f"n: {n}: give a whole number, at least 1")
    many = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim == 4)
    every: Any = given if many else [given]
    if not len(every):
        raise DataError("no images are given")
    images, classes = list[Tensor](), list[str | None]()
    for each in every:
        if len(classes) < n:
            some, own = _some(each, recipe, registry, n - len(classes))
            images.append(some)
            classes += own
    return torch.cat(images), classes


def labels_for(
    given: str | int | Sequence[str | int] | None,
    known: Sequence[str | None],
    recipe: Recipe,
    names: Sequence[str],
) -> Tensor | None:
    """[N]  The labels of images: those that are given, else those that are known.

    `given` is a class by its name or number for all images, or one for each; `known` are their
    classes as far as their data set names them, and `names` those of the run. None for a model that
    takes no labels. Raises `RecipeError` for a class that there is not, and for labels that are
    needed and not known.
    """
    if not recipe.takes_labels:
        if given is not None:
            raise RecipeError("labels: the networks take no labels; leave it out")
        return None
    wanted: Sequence[str | int | None] = known
    if given is not None:
        given = given.tolist() if isinstance(given, np.generic | np.ndarray | Tensor) else given
        wanted = [given] * len(known) if isinstance(given, str | int) else [*given]
        if len(wanted) != len(known):
            count = f"{len(wanted)} for {len(known)} images"
            raise RecipeError(f"labels: {count}; give one for each image, or one for all of them")
    found = []
    for number, label in enumerate(wanted):
        if label is None:
            text = "the model takes labels, and the class of image"
            advice = f"labels='{names[0]}' for all images, or labels=[...] with one for each"
            there = f"the classes are {listed(names)}"
            raise RecipeError(f"{text} {number} is not known: give {advice}; {there}")
        found.append(label_called(label, names))
    return torch.tensor(found)


def _fields(place: str, registry: Registry) -> dict[str, Any] | None:
    """Return the type and the fields of the data set at a place; None for a file of one image."""
    try:
        return dataset_at(place, registry)
    except DataError:
        if user_path(place).is_file():
            return None
        raise


def _some(given: Any, recipe: Recipe, registry: Registry, n: int) -> Found:
    """Return at most n images of a tensor or a folder, or one image; and their classes."""
    if isinstance(given, Images):
        images = _checked(given.tensor, recipe.image, n)
        return images, given.classes[:n] or [None] * len(images)
    if isinstance(given, Tensor):
        images = _checked(given, recipe.image, n)
    elif isinstance(given, str | Path) and (fields := _fields(str(given), registry)):
        return _folder(fields, recipe, registry, n)
    else:
        image = replace(recipe.image, classes=0)
        images = as_images(_all(decoded(_Single(given), image, 1).images), "cpu")
    return images, [None] * len(images)


def _folder(fields: dict[str, Any], recipe: Recipe, registry: Registry, n: int) -> Found:
    """Return images of a place. They have classes if it is read as the recipe's data set is."""
    own = recipe.dataset.model_dump(mode="json")
    if recipe.takes_labels and own["type"] == fields["type"]:
        like_recipe = with_part(recipe, "dataset", {**own, **fields}, registry).dataset
        with suppress(RecipeError, DataError), noticing([]):  # it has other classes, or none
            source, _ = open_source(like_recipe, recipe.image)
            store = decoded(source, recipe.image, n)
            if store.labels is not None:
                names = names_of(source, recipe.image)
                classes = [_called(names, label) for label in store.labels[:n]]
                return as_images(_all(store.images), "cpu"), classes
    dataset = with_part(recipe, "dataset", fields, registry).dataset
    image = replace(recipe.image, classes=0)
    source, _ = open_source(dataset, image)
    images = as_images(_all(decoded(source, image, n).images), "cpu")
    return images, [None] * len(images)


class _Single:
    """One image as a source, so that it is decoded as those of a data set are."""

    fingerprint = ""

    def __init__(self, given: str | Path | Image.Image | NDArray[Any]) -> None:
        self.given = given

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        given = self.given
        if isinstance(given, Image.Image):
            return given.copy()  # whoever decodes it closes it
        if isinstance(given, np.ndarray):
            return given
        if not isinstance(given, str | Path):
            raise DataError(
                f"{type(given).__name__}: give a path, a PIL image, an array or a tensor"
            )
        path = user_path(given)
        try:
            with open_regular(path) as file:
                return _upright(file)
        except Exception as error:
            raise DataError(f"{path}: {type(error).__name__}: {error}") from error


def _upright(file: IO[bytes]) -> Image.Image:
    """Return the first frame of an image file, rotated as its EXIF data say."""
    Image.init()
    opened = Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN])
    if opened.width * opened.height > MAX_PIXELS:
        raise DataError(f"{opened.width:,} x {opened.height:,} pixels; at most {MAX_PIXELS:,}")
    ImageOps.exif_transpose(opened, in_place=True)
    opened.load()
    return opened


def _all(images: Any) -> NDArray[Any]:
    """[N, H, W, C]  All images of a small store."""
    pixels: NDArray[Any] = images[: len(images)]
    return pixels


def _checked(images: Tensor, image: ImageSpec, n: int) -> Tensor:
    """[N, C, H, W]  At most n images as float32, on the CPU."""
    shape = (*image.shape,)
    if images.dim() == 3:
        images = images[None]
    if images.dim() != 4 or images.shape[1:] != shape or not images.is_floating_point():
        got = f"{images.dtype} of shape {[*images.shape]}"
        raise DataError(f"a tensor of {got}; give floats in [0, 1] of shape [N, {shape}]")
    images = images[:n].detach().float().cpu()
    if not ((images >= 0) & (images <= 1)).all():  # also when one is no number
        raise DataError("a tensor with values outside of [0, 1], or that are no numbers")
    return images
