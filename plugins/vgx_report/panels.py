"""The parts of a page that must be computed: samples, latents, nearest training images.

Letters: N images, M rows of the store, C channels, H x W pixels, D latent dimensions.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import vgx
from vgx.data.batches import as_images
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.evaluation.latents import ACTIVE, Latents, active_dimensions, kl_by_dimension
from vgx.images import as_pil, as_pixels, grid, opaque
from vgx.runs.directory import Run
from vgx.runs.frames import drawn, evenly, files, step_of
from vgx.runs.reading import grid as read_grid
from vgx.runs.reading import unless_damaged
from vgx.sampling.draw import Captions, draw_rows, prepare, whole_rows
from vgx.sampling.model import CHUNK, load_model
from vgx_report import diagram

if TYPE_CHECKING:
    from PIL import Image

SAMPLES, COLUMNS = 40, 10  # images of each sampler, at most in whole rows; in a row without rows
ENCODED = 600  # training images that are encoded
CELLS = (18, 12)  # the map of the latents has one image in each of so many cells
COPIES, NEAREST = 8, 4  # samples that are shown, and training images beside each of them
AROUND = 50  # training images that the nearest one of a sample is compared with
# The ratio below which a sample may be a copy. Of held-out images of two data sets of faces the
# lowest was 0.48, duplicates apart; a copy with noise of a tenth of the range is at 0.25.
COPY = 0.35
SEARCHED = 20000  # training images that are searched for copies
COMPARED = 16  # pixels to which each side is averaged before images are compared
LARGEST = 1024  # pixels of a side of an image that is embedded with loss
SMALL = 200 * 200  # pixels of an image that lossy WebP makes hardly smaller, but visibly worse
EXACT = 2**20  # pixels of the grids by which a model is judged; the page keeps every one of them
LOSS = "compressed with loss on this page"
CPU = torch.device("cpu")
Read = Callable[[Path], dict[str, Any] | None]  # the grid in a file as a page has it
OWN_IMAGES = "Not drawn here, because it opens images of its own; vgx sample draws it."


def compute(
    run: Run,
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    store: Store | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return the panels of a run's newest checkpoint, as plain data with images in it.

    Without a store, panels that need images of the data are left out. Raises `StorageError` when
    there is no checkpoint.
    """
    model = load_model(run, recipe, device, ("encoder", "decoder"))
    panels: dict[str, Any] = {"step": model.step}
    panels["samples"], own = _samples(run, model, recipe, registry)
    if store is None:
        return panels
    trained = np.flatnonzero(~held_out(store.hashes, recipe.eval.holdout))
    if own is not None:
        panels["neighbours"] = neighbours(own.cpu(), store, trained)
    if model.encoder is not None:
        panels |= _latents(model, store, trained)
    return panels


# --- images on a page --------------------------------------------------------------------------


def to_image(pixels: Tensor, size: int | None = None) -> Image.Image:
    """Return pixels [C, H, W] in [0, 1] as an image, no larger than `size` pixels."""
    image = as_pil(as_pixels(opaque(pixels[None]))[0]).convert("RGB")
    if size is not None:
        image.thumbnail((size, size))
    return image


def data_uri(image: Image.Image, *, exact: bool = True) -> str:
    """Return an image as a data URI: WebP, by default without loss."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=86, method=2, lossless=exact)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def embedded(image: Image.Image, exact: int = SMALL) -> dict[str, Any]:
    """Return an image as a page has it: its data, width and height, and what was lost, if anything.

    Nothing is lost of an image of at most `exact` pixels.
    """
    whole = image.width * image.height <= exact
    before = max(image.size)
    if not whole:
        image.thumbnail((LARGEST, LARGEST))
    image = image.convert("RGB")
    shown = {"uri": data_uri(image, exact=whole), "width": image.width, "height": image.height}
    loss = LOSS if before <= LARGEST else f"{LOSS}, and made smaller"
    return shown if whole else {**shown, "loss": loss}


# --- samples -----------------------------------------------------------------------------------


def _samples(
    run: Run,
    model: vgx.Model,
    recipe: vgx.Recipe,
    registry: vgx.Registry,
) -> tuple[list[dict[str, Any]], Tensor | None]:
    """Draw with the recipe's sampler, then with each other one that works with its defaults.

    Also return the images [N, C, H, W] of the recipe's sampler, if it draws any.
    """
    own = recipe.sampler
    parts = [part for _, part in registry.offers("sampler") if issubclass(part, vgx.Sampler)]
    parts = [part for part in parts if not part.needs_prior or model.prior is not None]
    others = with_defaults([part for part in parts if part.type != own.type])
    panels: list[dict[str, Any]] = []
    first = None
    for part in (own, *others):
        if part.own_images:  # a page opens no folder that a recipe names
            panels.append({"sampler": part.type, "note": OWN_IMAGES})
            continue
        try:
            drawn = draw_samples(run, model, part)
        except Exception as error:  # noqa: BLE001 - a faulty sampler costs its own panel only
            if part is not own and isinstance(error, vgx.RecipeError):
                continue  # it does not fit the recipe, such as truncation in w without any w
            panels.append({"sampler": part.type, "note": f"Draws nothing here: {error}"})
            continue
        if drawn is None:
            continue
        images, captions = drawn
        note = ["The recipe's sampler."] if part is own else []
        if captions:  # as text: in a small picture they cannot be read
            note.append(f"Rows from the top: {'; '.join(captions)}.")
        first = images if part is own else first
        exact = EXACT if part is own else SMALL
        picture = embedded(to_image(grid(images, part.row_length or COLUMNS)), exact)
        panels.append({"sampler": part.type, "note": " ".join(note), "image": picture})
    return panels, first


def with_defaults(parts: list[type[vgx.Sampler]]) -> list[vgx.Sampler]:
    """Return those samplers that can be made without any field."""
    samplers: list[vgx.Sampler] = []
    for part in parts:
        # It fails for a required field, and for a validator that refuses the defaults.
        with suppress(Exception):
            samplers.append(part())
    return samplers


def draw_samples(run: Run, model: vgx.Model, part: vgx.Sampler) -> tuple[Tensor, Captions] | None:
    """Return images [N, C, H, W] as `vgx sample` draws them, and a caption for each row, if any.

    None when that would take long.
    """
    recipe = model.recipe
    if part is not recipe.sampler and isinstance(part.build(recipe.latent), vgx.Fitted):
        return None
    changed = replace(model, recipe=recipe.model_copy(update={"sampler": part}))
    return draw_rows(changed, prepare(changed, run), whole_rows(part, SAMPLES), 0)


# --- latents -----------------------------------------------------------------------------------


def _latents(model: vgx.Model, store: Store, trained: NDArray[np.int64]) -> dict[str, Any]:
    """Encode training images, evenly chosen, for the map and the KL of each dimension."""
    rows = store.spread(trained, ENCODED)
    latents = encoded(model, store, rows)
    panels: dict[str, Any] = {
        "map": latent_map(latents.mean, rows, store),
        "from_prior": distance_from_prior(latents),
    }
    return panels if latents.logvar is None else panels | {"kl": kl_panel(latents)}


def encoded(model: vgx.Model, store: Store, rows: NDArray[np.int64]) -> Latents:
    """Return the posteriors of some images of a store."""
    posteriors = []
    for piece in np.array_split(rows, math.ceil(len(rows) / CHUNK)):
        images = as_images(store.images[piece], model.codes.device)  # [N, C, H, W]
        labels = None if store.labels is None else torch.from_numpy(store.labels[piece])  # [N]
        posteriors.append(model.posterior(images, labels))
    return Latents.of(posteriors)


def distance_from_prior(latents: Latents) -> float:
    """Estimate how far the latents of all images are at least from N(0, I): a KL in nats.

    It is the KL of the Gaussian with their mean and variance in each dimension; among distributions
    with these moments this one is the nearest. The moments of N images make it too large, on
    average by (s + s^2) / 2N in a dimension, to first order, where s is the share of the variance
    that lies in the posteriors' means. That is subtracted.
    """
    of_means = latents.mean.var(0, unbiased=False)  # [D]
    within = 0.0 if latents.logvar is None else latents.logvar.exp().mean(0)
    variance = (of_means + within).clamp(min=1e-12)  # [D]
    kl = vgx.Gaussian(latents.mean.mean(0), variance.log()).kl().sum()
    share = of_means / variance  # [D]
    return float((kl - (share + share**2).sum() / (2 * len(latents.mean))).clamp(min=0))


def kl_panel(latents: Latents) -> dict[str, Any]:
    """Return the KL of each dimension, largest first, and which dimensions are active."""
    kl = torch.tensor(kl_by_dimension(latents))  # [D]
    order = kl.argsort(descending=True)
    used = active_dimensions(latents.mean)[order]  # [D]
    note = (
        f"{int(used.sum()):,} of {len(kl):,} dimensions are active: the variance of the mean "
        f"over {len(latents.mean):,} images is above {ACTIVE:g} (Burda et al. 2016). "
        f"The KL of all dimensions is {kl.sum():.4g} nats per image."
    )
    return {
        "kl": [float(f"{value:.4g}") for value in kl[order]],
        "order": order.tolist(),
        "active": used.tolist(),
        "note": note,
    }


def principal(means: Tensor) -> tuple[NDArray[np.float64], list[float]] | None:
    """Return the first two principal components [M, 2] of means [M, D], and their shares.

    Return None when the means vary in fewer than two directions.
    """
    centred = means - means.mean(0)
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    if len(directions) < 2 or scale[1] <= 0:
        return None
    # An axis may point either way; the largest weight is positive, so that all machines agree.
    signs = directions[:2].gather(1, directions[:2].abs().argmax(1, keepdim=True)).sign()
    points = (centred @ (directions[:2] * signs).T).numpy()
    return points, (scale[:2] ** 2 / (scale**2).sum()).tolist()


def one_in_each_cell(placed: NDArray[np.float64], cells: NDArray[np.int64]) -> list[int]:
    """Return of the points in each cell the one nearest to its middle, in the order of the points.

    `placed` are points [M, 2] in units of a cell, `cells` the cell [M, 2] of each.
    """
    off = np.abs(placed - cells - 0.5).max(1)  # [M]  distance from the middle of the cell
    nearest: dict[tuple[int, ...], int] = {}
    for index in np.argsort(off, kind="stable"):
        nearest.setdefault(tuple(cells[index].tolist()), int(index))
    return sorted(nearest.values())


def latent_map(means: Tensor, rows: NDArray[np.int64], store: Store) -> dict[str, Any] | None:
    """Project means [M, D] on their first two principal axes, with one image in each cell.

    Return None when they vary in one direction only.
    """
    if (found := principal(means)) is None:
        return None
    points, explained = found
    low, high = points.min(0), points.max(0)
    placed = (points - low) / np.maximum(high - low, 1e-12) * CELLS  # [M, 2]
    cells = np.minimum(placed.astype(np.int64), np.array(CELLS) - 1)  # [M, 2]
    images = [
        (index, data_uri(to_image(_stored(store, rows[index]), 46)))
        for index in one_in_each_cell(placed, cells)
    ]
    note = (
        f"Posterior means of {len(means):,} training images on their first two principal axes, "
        f"which hold {explained[0]:.0%} and {explained[1]:.0%} of the variance."
    )
    return {"points": np.round(points, 4).tolist(), "images": images, "note": note}


# --- copies ------------------------------------------------------------------------------------


def neighbours(samples: Tensor, store: Store, trained: NDArray[np.int64]) -> dict[str, Any]:
    """Find the training images nearest to samples [N, C, H, W] or to their mirror images.

    A copy is much nearer to one training image than to others that are near: the measure is the
    distance to the nearest over the mean distance to the nearest 50 (Carlini et al. 2023, section
    5.1, without the constant). A blurred image is near to many.
    """
    rows = store.spread(trained, SEARCHED)
    parts = np.array_split(rows, math.ceil(len(rows) / 512))
    real = torch.cat([_shrunk(as_images(store.images[part], CPU)) for part in parts])  # [M, P]
    distances = _distances(_shrunk(samples), real)  # [N, M]
    distances = distances.minimum(_distances(_shrunk(samples.flip(-1)), real))
    near, indices = distances.topk(min(AROUND, len(rows)), largest=False)  # [N, 50]
    ratios = near[:, 0] / near.mean(1).clamp(min=1e-12)  # [N]
    height, width = (min(COMPARED, side) for side in samples.shape[2:])
    note = (
        f"The {min(COPIES, len(samples))} of {len(samples)} samples of the recipe's sampler that "
        f"are most like copies, each beside the training images nearest to it or to its mirror "
        f"image. The number under a training image is the distance: the root of the mean squared "
        f"difference of pixel values in [0, 1], on images averaged to {height} x {width} pixels. "
        f"{len(rows):,} of {len(trained):,} training images were searched. The number under a "
        f"sample is the distance to its nearest image over the mean distance to its nearest "
        f"{near.shape[1]} (Carlini et al. 2023): near 0 for a copy, near 1 for an image that is "
        f"like many."
    )
    panels = [
        {
            "sample": data_uri(to_image(samples[i], 96)),
            "ratio": ratios[i].item(),
            "near": [
                (data_uri(to_image(_stored(store, rows[m]), 96)), distance)
                for m, distance in zip(
                    indices[i, :NEAREST].tolist(), near[i].tolist(), strict=False
                )
            ],
        }
        for i in ratios.argsort(stable=True)[:COPIES].tolist()
    ]
    return {
        "rows": panels,
        "note": note,
        "ratio": ratios.min().item(),
        "copies": int((ratios < COPY).sum()),
        "samples": len(samples),
        "around": near.shape[1],
    }


def _stored(store: Store, row: int) -> Tensor:
    """[C, H, W]  One image of the store, in [0, 1]."""
    return as_images(store.images[row : row + 1], CPU)[0]


def _shrunk(images: Tensor) -> Tensor:
    """[N, P]  Images [N, C, H, W] averaged to few pixels."""
    size = [min(COMPARED, side) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="area").flatten(1)


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """[N, M]  Root mean squared difference of each row [P] of one and each of two."""
    distances: Tensor = torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / math.sqrt(one.shape[1])


# --- files of the run --------------------------------------------------------------------------


def frames(
    run: Run, environment: Mapping[str, Any], most: int, read: Read
) -> tuple[list[dict[str, Any]], int]:
    """Return at most `most` of the grids of training, evenly chosen, and how many there are."""
    grids = drawn(run)
    panels = [frame(file, environment, read) for file in evenly(grids, most)]
    return [panel for panel in panels if panel is not None], len(grids)


def frame(file: Path, environment: Mapping[str, Any], read: Read) -> dict[str, Any] | None:
    """Return a grid of samples and the other grids of the same step, as `read` gives each file.

    A run of an earlier vgx, whose environment names no sampler, drew N(0, I): that grid is called
    `prior`, as it is now. Return None when the grid cannot be read, with a `Notice` if it is there.
    """
    grids = {name: read(path) for name, path in files(file.parent, step_of(file)).items()}
    if grids["samples"] is None:
        return None
    if "grids" not in environment and grids["prior"] is None:
        grids["prior"] = grids.pop("samples")
    return {"step": step_of(file), **{name: grid for name, grid in grids.items() if grid}}


def embedding(pixels: int, run: Run | None = None) -> Read:
    """Return a function that embeds the grid in a file, or gives None if none can be read.

    `pixels` is the number of pixels of one image of the run. Nothing is lost of the newest
    reconstructions of `run`.
    """
    grids = [] if run is None else drawn(run)
    newest = files(grids[-1].parent, step_of(grids[-1]))["recon"] if grids else None

    def read(file: Path) -> dict[str, Any] | None:
        if not os.path.lexists(file):
            return None
        image = unless_damaged(lambda path: read_grid(path, pixels), file)
        return None if image is None else embedded(image, EXACT if file == newest else SMALL)

    return read


def grid_titles(samplers: Iterable[str]) -> dict[str, str]:
    """Return the titles of the grids of training, by their names; `samplers` drew the samples."""
    return {
        "samples": f"Sampler {' and '.join(dict.fromkeys(samplers))}",
        "prior": "Latents from N(0, I)",
        "recon": "Real above reconstruction",
    }


def drawing(run: Run) -> dict[str, str]:
    """Return the diagram of `vgx explain` as an image, and its text.

    Raises `StorageError` when the run's files do not contain enough for it.
    """
    explanation = diagram.of_run(run)
    encoded = base64.b64encode(diagram.svg(explanation).encode()).decode()
    return {
        "uri": f"data:image/svg+xml;base64,{encoded}",
        "alt": "; ".join(diagram.chain(explanation)[::2]),
    }
