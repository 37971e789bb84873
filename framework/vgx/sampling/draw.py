"""New images from a trained run: the one place where a sampler is prepared and draws.

Letters: N images in a chunk, n images in all, C channels, H x W pixels, Z the latent shape, K
stored latents.
"""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, SupportsIndex, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vgx import rng
from vgx.data.batches import as_images
from vgx.data.classes import as_labels_of, label_called, listed
from vgx.data.store import name_of, open_store
from vgx.distributed.pieces import gathered, own_pieces, require_same
from vgx.distributed.processes import local_size
from vgx.errors import Notice, RecipeError, StorageError
from vgx.images import ahead, threads
from vgx.parts.kinds import (
    Decodes,
    Fitted,
    Labelled,
    LatentSampler,
    OfClass,
    Sampler,
    Source,
    UsesModel,
)
from vgx.parts.registry import Registry
from vgx.recipe.load import load_recipe, with_part
from vgx.recipe.model import Recipe
from vgx.runs import reading, summed
from vgx.runs.directory import Run
from vgx.runs.exported import about, is_exported
from vgx.runs.moved import looking_back
from vgx.runs.trust import registry_of
from vgx.sampling.model import CHUNK, NETWORKS, Model, labels_in_turn, load_model, located

VALUES = 2**21  # pixel values decoded at once, at most
ALL = slice(None)
MAX_FIT = 2**28  # bytes of a file with what a sampler learned
Captions = tuple[str, ...]  # of each row of a grid, if the sampler has any
LabelCounts = NDArray[np.int64]  # [classes]  how many images have each label


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sampler, ready to draw, and the latents that it draws from."""

    part: Sampler
    sampler: LatentSampler
    codes: Tensor  # [K, *Z]  on the CPU, so that every device draws the same latents
    labels: Tensor | None  # [K]  of the codes, if the decoder takes labels and they are known
    kl: Tensor | None  # [*Z]  mean KL of the run's posteriors by dimension, if it is known
    classes: int  # labels that the decoder takes, or 0
    names: tuple[str, ...] = ()  # of these labels, if they are known
    label: int | None = None  # the only one that is drawn, if it was asked for
    in_order: bool = False  # image i has the label of image i that the sampler was given


@dataclass(frozen=True, eq=False)
class Latents:
    """New latents, and what they are decoded with."""

    z: Tensor  # [n, *Z]
    labels: Tensor | None  # [n], if the decoder takes labels
    captions: Captions


def sample(
    run: Run | str | Path | int | None = None,
    sampler: str | Sampler | None = None,
    n: int = 100,
    seed: int = 0,
    *,
    settings: dict[str, Any] | None = None,
    device: torch.device | str | None = None,
    best: bool = False,
    label: str | int | None = None,
    step: int | None = None,
) -> Tensor:
    """[n, C, H, W]  New images in [0, 1] from a run's newest checkpoint, its best, or a step's.

    They are drawn on `device` and stay there; None is a GPU with CUDA if there is one, else the
    CPU. `sampler` is a type, and `settings` are its fields, or a sampler; by default the recipe's.
    Image i depends on the run, the sampler, the seed, the label and i alone, never on n. With
    `label`, the name or the number of a class, all images are of this class; the decoder must take
    labels.
    """
    require_numbers(n, seed)
    model, ready = open_sampler(run, sampler, settings, device, best=best, label=label, step=step)
    return torch.cat(list(draw(model, ready, n, seed)))


def require_numbers(n: int, seed: int) -> None:
    """Raise `RecipeError` unless so many images can be drawn with the seed."""
    for name, number, least in (("n", n, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, SupportsIndex) or number < least:
            raise RecipeError(f"{name}: {number!r}: give a whole number, at least {least}")


def open_sampler(
    run: Run | str | Path | int | None = None,
    sampler: str | Sampler | None = None,
    settings: dict[str, Any] | None = None,
    device: torch.device | str | None = None,
    *,
    best: bool = False,
    label: str | int | None = None,
    step: int | None = None,
) -> tuple[Model, Prepared]:
    """Return a run's networks, and a sampler that is ready to draw; arguments as in `sample`."""
    run = located(run)
    registry = registry_of(run)
    recipe = load_recipe(run.recipe_file, (), registry)
    own = sampler in (None, recipe.sampler.type)
    if sampler is not None or settings:
        recipe = with_sampler(recipe, sampler, settings or {}, registry.with_parts(sampler))
    wanted = None if label is None else _label(run, recipe, label)
    if own and recipe.sampler.own_images:  # the recipe says where, and may be a stranger's
        text = f"opening the images of the sampler {name_of(recipe.sampler)}"
        warnings.warn(text, Notice, stacklevel=2)
    with looking_back(run, recipe):
        source = recipe.sampler.pictures(recipe.image)
    networks: tuple[str, ...] = ("decoder",) if source is None else ("encoder", "decoder")
    if isinstance(recipe.sampler.build(recipe.latent), UsesModel):
        networks = NETWORKS
    model = load_model(run, recipe, device, networks, best=best, step=step)
    needed = source is None and recipe.sampler.least_codes > 0
    if needed and not len(model.codes) and is_exported(run.path):
        text = "the model was exported without its stored latents (vgx export --codes)"
        other = "another sampler draws without them: prior"
        raise RecipeError(f"sampler {recipe.sampler.type}: {text}; {other}")
    return model, prepare(model, run, source, label=wanted)


def class_names(run: Run, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of a run's classes, or their numbers where it has no names."""
    known = [each["name"] for each in _classes(run)]
    numbers = map(str, range(len(known), recipe.image.classes))
    return (*known, *numbers)[: recipe.image.classes]


def _classes(run: Run) -> list[reading.Class]:
    if is_exported(run.path):
        return about(run.path).get("classes", [])
    environment = reading.unless_damaged(reading.environment, run.path) or {}
    return environment.get("data", environment).get("classes", [])


def _label(run: Run, recipe: Recipe, wanted: str | int) -> int:
    """Return the label of a class. Raises `RecipeError` for networks that take no labels."""
    if not (draws_labels(recipe) or (recipe.takes_labels and recipe.sampler.own_images)):
        takes = f"the decoder {recipe.decoder.type} takes no labels, so it draws no single class"
        raise RecipeError(f"{run.path}: {takes}; leave out the class, or train a recipe as cvae is")
    label = label_called(wanted, class_names(run, recipe))
    classes = _classes(run)
    if label < len(classes) and not classes[label]["count"]:
        text = f"no image of class {classes[label]['name']} was there to train on"
        warnings.warn(text, Notice, stacklevel=2)
    return label


def draws_labels(recipe: Recipe) -> bool:
    """Return whether what is drawn depends on labels: the decoder takes them, or the prior."""
    by_prior = recipe.sampler.needs_prior and recipe.prior is not None and recipe.prior.conditional
    return recipe.decoder.conditional or by_prior


def with_sampler(
    recipe: Recipe, sampler: str | Sampler | None, settings: dict[str, Any], registry: Registry
) -> Recipe:
    """Return the recipe with another sampler, or with other fields of its own sampler.

    A field may be written as in a recipe's settings: `sampler.of` is `of`.
    """
    if sampler in (None, recipe.sampler.type):
        sampler = recipe.sampler
    base = {"type": sampler} if isinstance(sampler, str) else sampler.model_dump(mode="json")
    fields = {name.removeprefix("sampler."): value for name, value in settings.items()}
    return with_part(recipe, "sampler", {**base, **fields}, registry)


def prepare(
    model: Model,
    run: Run | None = None,
    source: Source | None = None,
    most: int | None = None,
    label: int | None = None,
) -> Prepared:
    """Return the recipe's sampler, ready to draw; with a `label`, images of that class alone.

    A sampler of its own images, `source`, draws from the latents of these, or of the first `most`;
    others draw from the run's. A fitted sampler learns from these; with a run, what it learned is
    kept there and used again. Raises `RecipeError` for own images whose labels are needed and not
    known.
    """
    part, recipe = model.recipe.sampler, model.recipe
    known = recipe.takes_labels or draws_labels(recipe)
    names = class_names(run, recipe) if run and known else ()
    if model.kl is not None:
        part = part.for_kl(model.kl.cpu())
    if part.needs_prior and model.prior is None and model.sha256:  # not while it is trained
        setting = "" if recipe.prior else " --set prior=TYPE"
        command = f"vgx fit {run.short if run else 'RUN'}{setting}"
        raise RecipeError(f"sampler {part.type}: there is no trained prior; train one: {command}")
    sampler = built_sampler(part, model)
    if source is None:
        codes, labels = model.codes.cpu(), model.labels
    else:
        codes, labels = encode_images(model, source, most, names, label)
    if isinstance(sampler, Fitted):
        if run is None or source is not None or is_exported(run.path):
            sampler.fit(codes)
        else:
            sampler = _fit_once(part, model, codes, run)
    classes = recipe.image.classes if draws_labels(recipe) else 0
    if classes and labels is None and part.least_codes:
        text = "the run's stored latents have no labels; those that are drawn may not be theirs"
        warnings.warn(f"sampler {part.type}: {text}", Notice, stacklevel=2)
    labels = labels.cpu() if classes and labels is not None else None
    own = source is not None
    return Prepared(part, sampler, codes, labels, model.kl, classes, names, label, in_order=own)


def built_sampler(part: Sampler, model: Model) -> LatentSampler:
    """Return what a sampler builds, which is given the networks if it uses them."""
    sampler = part.build(model.recipe.latent)
    if isinstance(sampler, UsesModel):
        sampler.use(model)
    return sampler


def encode_images(
    model: Model, source: Source, most: int | None, names: Sequence[str], label: int | None
) -> tuple[Tensor, Tensor | None]:
    """[K, *Z], [K]  The posterior means of a sampler's own images, and their labels; on the CPU.

    The labels are those of the images, by their names, else all are `label`. Raises `RecipeError`
    when the model takes labels and there are neither.
    """
    recipe = model.recipe
    known = recipe.takes_labels and isinstance(source, Labelled)
    image = recipe.image if known else replace(recipe.image, classes=0)
    store = open_store(source, image, advice="Remove them from the sampler's path")
    stored, labels = store.images[:most], None
    if recipe.takes_labels:
        if store.labels is not None:
            own = as_labels_of(store.labels[: len(stored)], store.names, names or store.names)
            labels = torch.from_numpy(own)  # [K]
        elif label is not None:
            labels = torch.full((len(stored),), label)  # [K]
        else:
            text = "the model takes labels, and those of the sampler's own images are not known"
            advice = "give one class for all of them: --class NAME (in Python: label=)"
            raise RecipeError(f"sampler {recipe.sampler.type}: {text}; {advice}")
    device, codes = model.codes.device, []
    for start in range(0, len(stored), CHUNK):
        images = as_images(stored[start : start + CHUNK], device)  # [N, C, H, W]
        some = None if labels is None else labels[start : start + CHUNK]
        codes.append(model.encode(images, some).cpu())
    return torch.cat(codes), labels


def whole_rows(part: Sampler, most: int) -> int:
    """Return the largest number of images up to `most` that fills whole rows; at least one row."""
    row = part.row_length or 1
    return max(most // row, 1) * row


def draw(
    model: Model, prepared: Prepared, n: int, seed: int, counts: LabelCounts | None = None,
    pieces: slice = ALL,
) -> Iterator[Tensor]:  # fmt: skip
    """Draw n latents; give their images [N, C, H, W] in [0, 1] chunk by chunk, as `decoded`."""
    latents = draw_latents(prepared, n, seed, counts)
    return decoded(model, latents.z, latents.labels, prepared.sampler, pieces)


def draw_rows(model: Model, prepared: Prepared, n: int, seed: int) -> tuple[Tensor, Captions]:
    """Draw images [n, C, H, W] in [0, 1] for a grid, with the captions of its rows."""
    latents = draw_latents(prepared, n, seed)
    images = [*decoded(model, latents.z, latents.labels, prepared.sampler)]
    return torch.cat(images), latents.captions


def decoded_by_all(model: Model, prepared: Prepared, latents: Latents) -> Iterator[Tensor]:
    """Give the images of latents as `decoded`, of which each process decodes its share.

    All processes must go through them. Raises `StorageError` if they opened other checkpoints.
    """
    require_same(model.sha256, "checkpoints")
    own = decoded(model, latents.z, latents.labels, prepared.sampler, own_pieces())
    return (piece["images"] for piece in gathered({"images": images} for images in own))


def draw_latents(
    prepared: Prepared, n: int, seed: int, counts: LabelCounts | None = None
) -> Latents:
    """Draw n latents, each with the label that it is decoded with if the decoder takes labels.

    Labels are drawn by their shares in `counts`, by default in the stored latents. The latents of a
    label are drawn from stored latents with that label alone.
    """
    part, row = prepared.part, prepared.part.row_length or n

    def drawn(count: int, codes: Tensor, *label: int) -> tuple[Tensor, tuple[str, ...]]:
        sampler, generator = prepared.sampler, rng.generator(seed, "sampler", *label)
        if label and isinstance(sampler, OfClass):
            z = sampler.draw_class(label[0], count, codes, generator)
        else:
            z = sampler.draw(count, codes, generator)
        return z, tuple(part.captions(count, codes, prepared.kl))

    labels = draw_labels(prepared, n, seed, counts) if prepared.classes else None  # [n]
    if labels is None or (prepared.labels is None and not isinstance(prepared.sampler, OfClass)):
        z, captions = drawn(n, prepared.codes)
        return Latents(z, labels, _with_classes(prepared, labels, captions))
    z = prepared.codes.new_empty(n, *prepared.codes.shape[1:])  # [n, *Z]
    rows = [""] * math.ceil(n / row)
    for label in np.unique(labels.numpy()).tolist():
        places = (labels == label).nonzero()[:, 0]
        codes = prepared.codes
        if prepared.labels is not None:
            codes = codes[prepared.labels == label]
        z[places], captions = drawn(len(places), codes, label)
        # A row has one label, so every `row`-th place begins one.
        for place, caption in zip(places[::row].tolist(), captions, strict=False):
            rows[place // row] = caption
    return Latents(z, labels, _with_classes(prepared, labels, tuple(rows) if any(rows) else ()))


def _with_classes(prepared: Prepared, labels: Tensor | None, captions: Captions) -> Captions:
    """Put the name of the class before the caption of each row, where a row has one class."""
    if labels is None or not (prepared.names and prepared.part.row_length):
        return captions
    names = [prepared.names[label] for label in labels[:: prepared.part.row_length].tolist()]
    pairs = zip_longest(names, captions, fillvalue="")
    return tuple(": ".join(filter(None, pair)) for pair in pairs)


def draw_labels(prepared: Prepared, n: int, seed: int, counts: LabelCounts | None = None) -> Tensor:
    """[n]  Draw labels by their shares in `counts`: one for each row, each image, or for all.

    Those of a sampler's own images are in the order of these. A label of which too few latents are
    stored for the sampler is left out, with a notice. Without stored labels and `counts`, all
    labels are equally likely.
    """
    part = prepared.part
    together = n if part.one_label else part.row_length or 1
    if prepared.in_order and prepared.labels is not None and prepared.label is None:
        rows = torch.arange(math.ceil(n / together)) % len(prepared.labels)
        return prepared.labels[rows].repeat_interleave(together)[:n]
    if prepared.label is not None:
        counts = np.bincount([prepared.label], minlength=prepared.classes)
    if prepared.labels is not None:
        stored = np.bincount(prepared.labels.numpy(), minlength=prepared.classes)
        counts = stored if counts is None else counts
        enough = stored >= part.least_codes
        if missing := np.flatnonzero((counts > 0) & ~enough).tolist():
            names = listed([prepared.names[n] if prepared.names else str(n) for n in missing])
            needs = f"{part.least_codes} stored latents of a label"
            text = f"sampler {part.type} needs {needs}; there are fewer of label {names}"
            if len(missing) == (counts > 0).sum():
                raise RecipeError(text)
            warnings.warn(f"{text}: not drawn", Notice, stacklevel=2)
        counts = counts * enough
    elif counts is None:
        counts = np.ones(prepared.classes, np.int64)
    return random_labels(counts, n, seed, together)


def random_labels(counts: LabelCounts, n: int, seed: int, together: int = 1) -> Tensor:
    """[n]  Draw labels by their shares in `counts`; `together` images in a row get the same one."""
    until = counts.cumsum()
    uniform = np.random.default_rng(rng.key(seed, "labels")).random(math.ceil(n / together))
    labels = torch.from_numpy(np.searchsorted(until, uniform * until[-1], side="right"))
    return labels.repeat_interleave(together)[:n]


@torch.no_grad()
def decode(model: Model, sampler: LatentSampler | None, z: Tensor, labels: Tensor | None) -> Tensor:
    """[N, C, H, W]  Images in [0, 1] of latents [N, *Z], on the model's device.

    A sampler that decodes by itself does so; by default the model decodes. Without labels [N], a
    conditional decoder gets each one in turn.
    """
    if not isinstance(sampler, Decodes):
        return model.decode(z, labels)
    device = model.codes.device
    labels = labels_in_turn(len(z), model.recipe, device) if labels is None else labels.to(device)
    return sampler.decode(z.to(device), labels if model.recipe.decoder.conditional else None)


def decoded(
    model: Model, z: Tensor, labels: Tensor | None = None, sampler: LatentSampler | None = None,
    pieces: slice = ALL,
) -> Iterator[Tensor]:  # fmt: skip
    """Give the images [N, C, H, W] in [0, 1] of latents [n, *Z], chunk by chunk.

    `sampler` is the one that drew the latents, for one that decodes by itself. Without labels [n],
    a conditional decoder gets each one in turn. The last chunk is padded: another number of images
    may be summed in another order, and image i must not depend on n, to the last bit. `pieces` are
    the chunks that are decoded.
    """
    if labels is None:
        labels = labels_in_turn(len(z), model.recipe, z.device)  # [n]
    size = max(1, min(CHUNK, VALUES // model.recipe.image.pixel_values))

    def chunk(start: int) -> Tensor:
        part, own = z[start : start + size], labels[start : start + size]
        missing = size - len(part)
        padded = F.pad(part, (0, 0) * (z.dim() - 1) + (0, missing))  # [size, *Z]
        return decode(model, sampler, padded, F.pad(own, (0, missing)))[: len(part)]

    # A GPU runs one operation after another; the cores of a CPU run side by side.
    at_once = 1 if model.codes.is_cuda else max(1, threads() // local_size())
    return ahead(chunk, range(0, len(z), size)[pieces], at_once)


def _fit_once(part: Sampler, model: Model, codes: Tensor, run: Run) -> LatentSampler:
    """Return a sampler that learned from codes [K, *Z]; what it learned is kept in a file.

    There is a file for each set of fields, and each version of the sampler's code. A file that is
    damaged, or of other codes, is replaced with a `Notice`; there is a notice too when it cannot be
    written.
    """
    own, sampler = model.recipe.sampler, cast("Fitted", built_sampler(part, model))
    modules = [sys.modules.get(type(each).__module__) for each in (own, sampler)]
    files = list(filter(None, (getattr(module, "__file__", None) for module in modules)))
    if len(files) < len(modules):  # in a notebook nothing says whether it learns as before
        sampler.fit(codes)
        return sampler
    code = b"".join(Path(file).read_bytes() for file in files)  # other code may learn other things
    settings = hashlib.sha256(own.model_dump_json().encode() + code).hexdigest()[:8]
    file, it = f"{part.type}-{model.step:08}-{settings}.safetensors", f"sampler {part.type}:"
    of = f"{settings} {hashlib.sha256(codes.contiguous().numpy().tobytes()).hexdigest()}"
    try:
        _load_fit(sampler, summed.read(run.fits / file, of, MAX_FIT), codes, run.fits / file)
    except FileNotFoundError:
        pass
    except (OSError, StorageError) as error:
        warnings.warn(f"{it} learned again from the stored latents: {error}", Notice, stacklevel=2)
        sampler = cast("Fitted", built_sampler(part, model))  # the other one may be half loaded
    else:
        return sampler
    sampler.fit(codes)
    try:
        summed.write(run.place("samplers", file), sampler.state_dict(), of)
    except StorageError as error:
        warnings.warn(f"{it} what it learned is not kept: {error}", Notice, stacklevel=2)
    return sampler


def _load_fit(sampler: Fitted, state: dict[str, Tensor], codes: Tensor, file: Path) -> None:
    """Load what a sampler learned. Raises `StorageError` when it does not fit the sampler."""
    try:
        sampler.load_state_dict(state)
        z = sampler.draw(1, codes, rng.generator(0, "check"))  # [1, *Z]
        fits = z.shape[1:] == codes.shape[1:] and bool(z.isfinite().all())
    # A file of another sampler makes it raise many kinds of error.
    except Exception as error:
        raise StorageError(f"{file}: does not fit this sampler: {error!r}") from error
    if not fits:
        raise StorageError(f"{file}: latents drawn with it do not fit the run")
