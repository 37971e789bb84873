"""What stands before a training: its data set is opened, and all is tried on a few images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from vgx.check.examine import Findings, examine
from vgx.check.networks import try_source
from vgx.console import Console
from vgx.data.batches import Batches, as_batch, minibatches
from vgx.data.classes import summary
from vgx.data.look import with_background
from vgx.data.opening import store_of
from vgx.data.peek import check_labels, peek, spread
from vgx.data.split import held_out
from vgx.data.store import Store, announce, open_source, require_room, require_writable_cache
from vgx.distributed.processes import once_a_machine
from vgx.engine import memory
from vgx.engine.build import use_same_kernels
from vgx.engine.engine import Engine
from vgx.engine.starting import COLUMNS
from vgx.errors import StorageError, noticing
from vgx.evaluation.metrics import check_images, try_metrics
from vgx.parts.kinds import Grouped, Sampler, Source
from vgx.parts.registry import Registry
from vgx.parts.values import ImageSpec
from vgx.recipe.lengths import with_length
from vgx.recipe.model import Recipe
from vgx.runs.diffusers import require_like
from vgx.runs.weights import Weights, read_weights
from vgx.training.trackers import require_libraries

RESIDENT = 0.25  # of a GPU's memory that the images may take
CHECKED = 4  # images on which the networks and losses are checked
LOOKED = 16  # images that `check` decodes to see what they are like
LOOKED_AT = 1000  # images, at most, among which these are searched


def require_parts(recipe: Recipe) -> None:
    """Raise `RecipeError` for trackers and metrics that cannot work, whatever the images are."""
    require_libraries(recipe.trackers)
    try_metrics(recipe)


def weights_for(recipe: Recipe, out: str | Path | None, console: Console) -> Weights | None:
    """Read the weights that a recipe starts from; None when it starts from new ones."""
    if recipe.start is None:
        return None
    with console.phase("Reading the weights to start from"):
        weights = read_weights(recipe.start, [*recipe.networks], out)
    if weights.config is not None:
        parts = [getattr(recipe, name) for name in weights.networks]
        require_like(parts, recipe.latent.shape[0], weights.config, f"start.run: {weights.name}")
    return weights


def open_images(
    recipe: Recipe, samplers: Iterable[Sampler], console: Console
) -> tuple[Recipe, Source, list[str]]:
    """Open a recipe's data set; return its images and its notices, and print these.

    The recipe is returned with a colour for `background: auto`, if the first images need one.
    `samplers` are those that are used later: where their own images come from is printed too.
    """
    announce(recipe.dataset, samplers, console)
    source, notices = open_source(recipe.dataset, recipe.image)
    for notice in notices:
        console.warn(notice)
    if (image := with_background(source, recipe.image)) != recipe.image:
        console.print(f"image.background: {image.background}")
        recipe = recipe.model_copy(update={"image": image})
    return recipe, source, notices


def read_images(
    recipe: Recipe, source: Source, console: Console, verify: Console | None = None
) -> Store:
    """Return the decoded images of a recipe's data set; decode them if the cache has none.

    With `verify` all images are hashed, and that console shows how this goes on.
    """
    watching, always = verify or console, verify is not None
    share = recipe.eval.holdout
    store = once_a_machine(  # of several processes the others find it in the cache
        lambda: store_of(source, recipe.dataset, recipe.image, watching, share, verify=always)
    )
    held = held_out(store.hashes, share).sum()
    counts = [store.summary(), *([f"{held:,} held out"] if held else []), *store.look.counts()]
    console.print(f"Data: {'; '.join(counts)}")
    if classes := store.classes(recipe.image):
        console.print(f"Labels: {summary(classes)}")
    tell_of_images(store, recipe.image, console)
    check_images(recipe.eval, recipe.image, store)
    return store


def tell_of_images(store: Store, asked: ImageSpec, console: Console) -> None:
    """Print what became of `range: auto`, and notices about the images."""
    if store.image.range != asked.range:
        console.print(f"image.range: {list(store.image.range)}")
    for notice in store.look.notices(store.image, len(store.images)):
        console.warn(notice)


def try_recipe(
    recipe: Recipe,
    registry: Registry,
    source: Source,
    store: Store | None,
    reads: set[tuple[int, str]],
    device: torch.device,
    notices: list[str],
    console: Console,
    weights: Weights | None,
    *,
    all_follow: bool = True,
) -> tuple[Engine, Findings]:
    """Build the engine, and check everything on a few images of a data set.

    Without its `store`, the length of the training is that with every image. If `all_follow`, all
    images will be read, so those that cannot be read are named then. `weights` as in `build`.
    """
    try:
        require_writable_cache(source, recipe.image)
    except StorageError as error:
        if all_follow:
            raise
        console.warn(f"vgx run would end here: {error}")  # a recipe is checked anywhere
    require_room(source, recipe.image)
    try_source(recipe.dataset, source)
    if store is None:
        try_metrics(recipe, len(source))
        check_labels(source, recipe.image)
    # Also when the store exists: the audit must see which fields are read to decode an image.
    rows = spread(len(source), LOOKED_AT)
    if isinstance(source, Grouped):  # a group is read for each image, so these are of the first
        rows = [*range(min(len(source), LOOKED_AT))]
    tolerated = recipe.dataset.tolerated  # read in any case, since the audit sees what is read
    few, skip_bad = CHECKED if all_follow else LOOKED, all_follow or tolerated is not None
    images = peek(source, recipe.image, few, rows, skip_bad=skip_bad)
    if not all_follow:
        tell_of_images(images, recipe.image, console)
    count = trained_images(recipe, source, store)
    engine = build(recipe, count, device, notices, console, weights)
    with console.phase("Auditing the losses"):
        findings = examine(engine, registry, as_batch(images, CHECKED, device), reads)
    return engine, findings


def build(
    recipe: Recipe,
    images: int,
    device: torch.device,
    notices: list[str],
    console: Console,
    weights: Weights | None = None,
) -> Engine:
    """Build the engine of a training on `images`; add the notices of parts to `notices`.

    Its networks begin with `weights` where these fit, and what does not fit is printed.
    """
    length = length_of(recipe, minibatches(images, recipe.train.batch))
    new: list[str] = []
    with console.phase("Building the networks"), noticing(new):
        engine = Engine(with_length(recipe, length[0]), *length, device)
    for notice in new:
        console.warn(notice)
    notices += new
    if weights is not None:
        engine.start_from(weights.networks)
        print_start(engine, weights, console)
    return engine


def print_start(engine: Engine, weights: Weights, console: Console) -> None:
    """Print which tensors of other weights the networks took, and what is new."""
    console.print(f"Start: {weights}")
    started = {fit.network for fit in engine.fits}
    others = [name for name in engine.recipe.networks if name not in started]
    rows = [
        *(fit.row for fit in engine.fits),
        *((name, "nothing: it is new", "-") for name in others),
    ]
    console.table(COLUMNS, rows)
    for note in (note for fit in engine.fits for note in fit.notes):
        console.print(note)


def trained_images(recipe: Recipe, source: Source, store: Store | None) -> int:
    """Return how many images are trained on; without the store, how many are if all are usable."""
    if store is None:
        return math.ceil(len(source) * (1 - recipe.eval.holdout))
    return int((~held_out(store.hashes, recipe.eval.holdout)).sum())


def batches_of(recipe: Recipe, store: Store, device: torch.device) -> Batches:
    """Return the minibatches of a training."""
    held, train = held_out(store.hashes, recipe.eval.holdout), recipe.train
    rows = np.flatnonzero(~held) if held.any() else None
    return Batches(store.images, train.batch, train.seed, device, store.labels, rows)


def length_of(recipe: Recipe, per_epoch: int) -> tuple[int, int]:
    """Return how many steps a training has, and how many latents it stores.

    An epoch has `per_epoch` minibatches.
    """
    train = recipe.train
    steps = math.ceil((train.epochs or 1) * per_epoch / recipe.batches_per_step)
    return train.steps or steps, per_epoch * train.batch


def configure(engine: Engine, batches: Batches, recipe: Recipe) -> None:
    """Set precision, compiling and memory for many steps; on a GPU the kernels too."""
    engine.configure(recipe.train)
    if engine.device.type == "cpu":
        memory.keep_freed()
    else:
        if batches.images.nbytes < RESIDENT * memory.total_memory(engine.device):
            batches.reside()
        use_same_kernels()
