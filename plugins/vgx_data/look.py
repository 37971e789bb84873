"""A contact sheet of a data set: its images as the networks get them.

Letters: N images, L labels of these, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import vgx
from vgx.check.blame import blaming
from vgx.console import Console
from vgx.data.batches import as_images
from vgx.data.classes import classes_of, names_of, summary
from vgx.data.peek import peek, spread
from vgx.data.store import Labels, Store, beside, cached, files_left_out, watched_on
from vgx.files import user_path
from vgx.images import grid, require_image_file, save_image
from vgx.training.preparing import open_images, tell_of_images

IMAGES = 64  # on a sheet, at most
CLASSES = 16  # on a sheet, at most
COLUMNS = 8
DRAWS = 8  # of the augmentations for each image, on a sheet of draws
DRAWN = 8  # images on a sheet of draws, at most
LONGEST = 24  # letters of the name of a class beside its images
VALUES = 2**26  # of all images on a sheet, at most: 256 MiB
SMALL = 64  # images with shorter sides are enlarged by a whole factor
TITLE = 22  # pixels of the line above the images of a stage
FONT = 13
NARROWEST = 150  # pixels that a title takes; that of a single column takes fewer
COLUMN = 90


def write_sheet(
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    console: Console,
    out: Path | None = None,
    *,
    augmented: bool = False,
) -> Path:
    """Write the contact sheet of a recipe's data set, and return its file.

    With `augmented` it shows fewer images, each in a row with `DRAWS` draws of the augmentations.
    The images come from the store if there is one. Otherwise only those that are shown are decoded,
    and nothing is kept. Raises `RecipeError` for a file in the folder of the images, and when there
    are no augmentations to draw.
    """
    if augmented and not (recipe.augment or recipe.diff_augment):
        advice = "give it some, as in: --set 'augment=[horizontal-flip]'"
        raise vgx.RecipeError(f"the recipe {recipe.name} has no augmentations; {advice}")
    path = out or Path(f"look-{recipe.name}{'-augmented' * augmented}.png")
    most = most_images(recipe.image, augmented=augmented)
    require_image_file(path)
    _require_apart(path, recipe.dataset)
    working: dict[str, tuple[vgx.Component, object]] = {}
    with blaming(registry, working):
        recipe, source, _ = open_images(recipe, [], console)
        store = cached(source.fingerprint, recipe.image, watched_on(console))
        if store is None:
            store = _decoded(source, recipe, most, console)
        else:
            console.print(f"Data: {store.summary()}{beside(files_left_out(source))}")
            if classes := store.classes(recipe.image):
                console.print(f"Labels: {summary(classes)}")
            tell_of_images(store, recipe.image, console)
            store = _some(store, chosen(_all(store.labels), len(store.images), most))
        images = as_images(store.images[:], "cpu")  # [N, C, H, W]
        stages = _stages(recipe, images.repeat_interleave(DRAWS if augmented else 1, 0), working)
    names, labels = names_of(source, recipe.image), _all(store.labels)
    if augmented:
        panels = _draws(stages, labels, names)
    else:
        panels = [_panel(title, images, labels, names) for title, images in stages]
    # Side by side; of wide images, one below the other.
    save_image(torch.cat(panels, 1 if recipe.image.width > recipe.image.height else 2), path)
    return path


def _all(labels: Labels | None) -> NDArray[np.int64] | None:
    return None if labels is None else labels[:]


def _require_apart(path: Path, dataset: vgx.Dataset) -> None:
    """Raise `RecipeError` when a file would lie among the images, and be one of them from then."""
    place = dataset.model_dump().get("path")
    folder = user_path(place).resolve() if place else None
    if folder is not None and folder.is_dir() and path.resolve().is_relative_to(folder):
        message = f"lies in the folder of the images, {folder}, and would become one of them"
        raise vgx.RecipeError(f"{path}: {message}; give a file elsewhere with --out FILE")


def most_images(image: vgx.ImageSpec, *, augmented: bool) -> int:
    """Return how many images of this size a sheet shows, at most."""
    count, each = (DRAWN, DRAWS) if augmented else (IMAGES, 1)
    return max(1, min(count, VALUES // (each * image.pixel_values)))


def chosen(labels: NDArray[np.int64] | None, count: int, most: int) -> NDArray[np.int64]:
    """[N]  Return which of `count` images to show: spread evenly over all, or over each class.

    `labels` [L] are those of all images; one with a negative label has none, and is left out.
    """
    if labels is None or (labels < 0).all():
        return _spread(np.arange(count), most)
    shown = _spread(np.unique(labels[labels >= 0]), min(CLASSES, most))
    each = most // len(shown)
    return np.concatenate([_spread(np.flatnonzero(labels == label), each) for label in shown])


def _spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return values[spread(len(values), most)]


def _decoded(source: vgx.Source, recipe: vgx.Recipe, most: int, console: Console) -> Store:
    """Decode the images to show. Raises `DataError` when none of these is usable."""
    image, labels = recipe.image, None
    if image.classes and isinstance(source, vgx.Labelled):
        labels = np.array([source.label(row) for row in range(len(source))])  # [L]
    rows = chosen(labels, len(source), most)
    store = peek(source, image, len(rows), rows.tolist(), skip_bad=True)
    found = f"{len(source):,} images before filtering{beside(files_left_out(source))}"
    console.print(f"Data: {found}; {len(rows):,} were decoded: {store.summary()}")
    if classes := classes_of(source, image):
        console.print(f"Labels: {summary(classes)}")
    tell_of_images(store, image, console)
    return store


def _some(store: Store, rows: NDArray[np.int64]) -> Store:
    labels = None if store.labels is None else store.labels[rows]
    return replace(store, images=store.images[rows], hashes=store.hashes[rows], labels=labels)


def _stages(
    recipe: vgx.Recipe, images: Tensor, working: dict[str, tuple[vgx.Component, object]]
) -> list[tuple[str, Tensor]]:
    """Return images [N, C, H, W] with a title, as decoded and after each kind of augmentation."""
    stages = [("as decoded", images)]
    for field in ("augment", "diff_augment"):
        generator = torch.Generator().manual_seed(recipe.train.seed)
        for index, part in enumerate(getattr(recipe, field)):
            augment = part.build(recipe.image)
            working[f"{field}.{index}"] = part, augment
            with torch.no_grad():
                images = augment(images.clone(), generator)  # [N, C, H, W]
        if getattr(recipe, field):
            stages.append((f"after {field}", images))
    return stages


def _panel(
    title: str, images: Tensor, labels: NDArray[np.int64] | None, names: Sequence[str]
) -> Tensor:
    """[C, H, W]  Images [N, C, h, w] under a title, with the class at the left of their rows."""
    images = _enlarged(images)
    if labels is None:
        return _titled(title, grid(images, min(COLUMNS, math.ceil(math.sqrt(len(images))))))
    shown = np.unique(labels)
    columns = min(COLUMNS, max(np.bincount(labels)))
    rows, captions = list[Tensor](), list[str]()
    for label in shown:
        of_class = images[torch.from_numpy(labels == label)]  # [N, C, h, w]
        lines = math.ceil(len(of_class) / columns)
        black = images.new_zeros(lines * columns - len(of_class), *images.shape[1:])
        rows += [of_class, black]
        # The number too, since the font does not have the letters of all scripts.
        captions += [caption_of(int(label), names), *[""] * (lines - 1)]
    return _titled(title, grid(torch.cat(rows), columns, captions))


def _draws(
    stages: Sequence[tuple[str, Tensor]], labels: NDArray[np.int64] | None, names: Sequence[str]
) -> list[Tensor]:
    """Return a panel [C, H, W] for each stage: a row for each image, with all of its draws.

    Before the augmentations all draws are the image itself, so it is shown once, with its class.
    """
    (title, images), *others = stages  # [N * DRAWS, C, H, W]
    captions = [] if labels is None else [caption_of(int(label), names) for label in labels]
    first = grid(_enlarged(images[::DRAWS]), 1, captions)
    return [
        _titled(title, first, COLUMN),
        *(_titled(t, grid(_enlarged(i), DRAWS)) for t, i in others),
    ]


def _enlarged(images: Tensor) -> Tensor:
    """[N, C, H, W]  Images with small sides, each pixel as a square of pixels."""
    factor = max(1, SMALL // min(images.shape[2:]))
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def caption_of(label: int, names: Sequence[str] | None) -> str:
    """Return a label with its name, if that is another one than the number itself."""
    name = names[label][:LONGEST] if names else ""
    return f"{label}" if name in ("", f"{label}") else f"{label} {name}"


def _titled(title: str, panel: Tensor, narrowest: int = NARROWEST) -> Tensor:
    """[C, H, W]  The panel below its title, white on black."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT)
    panel = torch.nn.functional.pad(panel, (0, max(0, narrowest - panel.shape[2])))
    line = Image.new("L", (panel.shape[2], TITLE))
    ImageDraw.Draw(line).text((4, TITLE / 2), title, 255, font, anchor="lm")
    levels = torch.from_numpy(np.array(line)).to(panel) / 255  # [H, W]
    return torch.cat([levels.expand(len(panel), -1, -1), panel], 1)
