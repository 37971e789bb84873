"""What a report shows that must be computed: pictures drawn, encoded and searched for.

Letters: N pictures, M rows of the store, C channels, H x W pixels, D latent dimensions.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vgx.data.batches import as_images
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.evaluation.latents import ACTIVE, Latents, gap_at_least, kl_by_dimension
from vgx.images import as_pil, as_pixels
from vgx.parts.kinds import Fitted, Sampler
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe
from vgx.report import diagram as explain
from vgx.runs.directory import Run
from vgx.runs.frames import drawn, evenly, step_of
from vgx.sampling.draw import draw, prepare
from vgx.sampling.model import CHUNK, Model, load_model

if TYPE_CHECKING:
    from PIL import Image

DRAWN, COLUMNS = 40, 10  # pictures of each sampler; rows of ten are walks where a sampler walks
ENCODED = 600  # pictures that the latents are looked at with
CELLS = (18, 12)  # the map shows one picture in each of so many cells
ASKED, NEAREST = 8, 4  # samples that are shown, and training pictures beside each
AROUND = 50  # training pictures that a sample's nearest is held against
SEARCHED = 20000  # training pictures that are searched
COMPARED = 16  # pixels, to which pictures are averaged before they are compared
CPU = torch.device("cpu")
LARGEST = 1024  # pixels of a picture on the page


def show(
    run: Run, recipe: Recipe, registry: Registry, store: Store | None, device: torch.device
) -> dict[str, Any]:
    """Return what the newest checkpoint shows, as plain data with pictures in it.

    Without a store there is nothing that needs pictures of the data. Raises `StorageError` when
    there is no checkpoint.
    """
    model = load_model(run, recipe, device, ("encoder", "decoder"))
    shown: dict[str, Any] = {"step": model.step}
    shown["samples"], own = _samples(run, model, recipe, registry)
    if store is None:
        return shown
    trained = np.flatnonzero(~held_out(store.hashes, recipe.eval.holdout))
    if own is not None:
        shown["neighbours"] = _neighbours(own.cpu(), store, trained)
    if model.encoder is not None:
        shown |= _latents(model.encoder, store, trained, device)
    return shown


def picture(image: Image.Image) -> dict[str, Any]:
    """Return a picture as a page carries it: its data, width and height."""
    image = image.convert("RGB")
    image.thumbnail((LARGEST, LARGEST))
    return {"uri": _uri(image), "width": image.width, "height": image.height}


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    # A page is for looking; what small pictures lose in WebP is no less than what they spare.
    image.save(file, "WEBP", quality=86, method=2, lossless=max(image.size) < 200)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _image(pixels: Tensor, size: int | None = None) -> Image.Image:
    """Return an image [C, H, W] in [0, 1], no larger than `size` pixels."""
    image = as_pil(as_pixels(pixels[None])[0]).convert("RGB")
    if size is not None:
        image.thumbnail((size, size))
    return image


# --- samples -----------------------------------------------------------------------------------


def _samples(
    run: Run, model: Model, recipe: Recipe, registry: Registry
) -> tuple[list[dict[str, Any]], Tensor | None]:
    """Draw with the recipe's sampler, and with each installed one that needs nothing else."""
    from torchvision.utils import make_grid

    own = recipe.sampler
    others = [part for _, part in registry.offers("sampler") if part.type != own.type]
    ready = [
        part() for part in others if not any(f.is_required() for f in part.model_fields.values())
    ]
    shown: list[dict[str, Any]] = []
    first = None
    for part in (own, *ready):
        if not isinstance(part, Sampler):
            continue
        try:
            images = _drawn(run, model, recipe, part)  # [N, C, H, W]
        except Exception as error:  # noqa: BLE001 - one sampler's fault takes no page away
            shown.append({"sampler": part.type, "note": f"Draws nothing here: {error}"})
            continue
        if images is None:
            continue
        if part is own:
            first = images
        grid = _image(make_grid(images.cpu(), nrow=COLUMNS, padding=2))
        whose = "The recipe's sampler." if part is own else ""
        shown.append({"sampler": part.type, "note": whose, "picture": picture(grid)})
    return shown, first


def _drawn(run: Run, model: Model, recipe: Recipe, part: Sampler) -> Tensor | None:
    """[N, C, H, W]  What `vgx sample` draws; nothing where that would take long."""
    if part.pictures(recipe.image) is not None:
        return None
    if part is not recipe.sampler and isinstance(part.build(recipe.latent), Fitted):
        return None
    changed = recipe.model_copy(update={"sampler": part})
    sampler, codes = prepare(replace(model, recipe=changed), run)
    return torch.cat(list(draw(model, sampler, codes, DRAWN, 0)))


# --- latents -----------------------------------------------------------------------------------


@torch.no_grad()
def _latents(
    encoder: torch.nn.Module, store: Store, trained: NDArray[np.int64], device: torch.device
) -> dict[str, Any]:
    """Encode pictures evenly chosen from those of the training: KL of each dimension, and a map."""
    rows = trained[_spaced(len(trained), ENCODED)]
    posteriors = [
        encoder(as_images(store.images[part], device))
        for part in np.array_split(rows, math.ceil(len(rows) / CHUNK))
    ]
    seen = Latents.of(posteriors)
    shown: dict[str, Any] = {"map": _map(seen.mean, rows, store)}
    return shown if seen.logvar is None else shown | {"kl": _kl(seen, len(trained))}


def _kl(seen: Latents, trained: int) -> dict[str, Any]:
    """Return each dimension's KL, largest first, whether it is active, and the gap to the prior."""
    kl = torch.tensor(kl_by_dimension(seen))  # [D]
    order = kl.argsort(descending=True)
    active = seen.mean.var(0, correction=0)[order] > ACTIVE  # [D]
    note = (
        f"{int(active.sum()):,} of {len(kl):,} dimensions are active: the variance of the mean "
        f"over {len(seen.mean):,} pictures is above {ACTIVE:g} (Burda et al. 2016). "
        f"All together {kl.sum():.4g} nats a picture."
    )
    return {
        "kl": [float(f"{value:.4g}") for value in kl[order]],
        "order": order.tolist(),
        "active": active.tolist(),
        "note": note,
        "total": kl.sum().item(),
        "gap": gap_at_least(kl.sum().item(), trained),
    }


def _map(means: Tensor, rows: NDArray[np.int64], store: Store) -> dict[str, Any] | None:
    """Lay means [M, D] out on their two widest directions, with a picture in each cell there."""
    centred = means - means.mean(0)
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    if len(directions) < 2 or scale[1] <= 0:
        return None
    # Either sign is right; this one is the same everywhere.
    widest = directions[:2].gather(1, directions[:2].abs().argmax(1, keepdim=True)).sign()
    points = (centred @ (directions[:2] * widest).T).numpy()  # [M, 2]
    explained = (scale[:2] ** 2 / (scale**2).sum()).tolist()
    low, high = points.min(0), points.max(0)
    placed = (points - low) / np.maximum(high - low, 1e-12) * CELLS  # [M, 2]
    cells = np.minimum(placed.astype(np.int64), np.array(CELLS) - 1)  # [M, 2]
    off = np.abs(placed - cells - 0.5).max(1)  # [M]  how far from the middle of its cell
    middles: dict[tuple[int, ...], int] = {}
    for index in np.argsort(off, kind="stable"):
        middles.setdefault(tuple(cells[index].tolist()), int(index))
    pictures = [
        (index, _uri(_image(as_images(store.images[rows[index : index + 1]], CPU)[0], 46)))
        for index in sorted(middles.values())
    ]
    note = (
        f"Posterior means of {len(means):,} training pictures on their two principal axes, which "
        f"hold {explained[0]:.0%} and {explained[1]:.0%} of the variance."
    )
    return {"points": np.round(points, 4).tolist(), "pictures": pictures, "note": note}


# --- copies ------------------------------------------------------------------------------------


def _neighbours(samples: Tensor, store: Store, trained: NDArray[np.int64]) -> dict[str, Any]:
    """Find the training pictures nearest to samples [N, C, H, W], mirrored ones too.

    A copy is one that is far nearer to one picture than to others that are near: distance to the
    nearest over the mean distance to the nearest 50 (Carlini et al. 2023, section 5.1, without the
    constant). A blurred picture is near to many.
    """
    rows = trained[_spaced(len(trained), SEARCHED)]
    parts = np.array_split(rows, math.ceil(len(rows) / 512))
    real = torch.cat([_shrunk(as_images(store.images[part], CPU)) for part in parts])  # [M, P]
    distances = _distances(_shrunk(samples), real)  # [N, M]
    distances = distances.minimum(_distances(_shrunk(samples.flip(-1)), real))
    near, found = distances.topk(min(AROUND, len(rows)), largest=False)  # [N, 50]
    ratios = near[:, 0] / near.mean(1).clamp(min=1e-12)  # [N]
    size = min(COMPARED, samples.shape[-1])
    note = (
        f"Of {len(samples)} samples of the recipe's sampler the {min(ASKED, len(samples))} that "
        f"are most like copies, and beside each the training pictures nearest to it, mirrored or "
        f"not, with their distance: the root of the mean squared difference of pixel values in "
        f"[0, 1], on pictures averaged to {size} x {size} pixels. {len(rows):,} of "
        f"{len(trained):,} training pictures were searched. Under a sample stands the distance to "
        f"its nearest over the mean distance to its nearest {near.shape[1]} (Carlini et al. 2023): "
        f"near 0 for a copy, near 1 for a picture that is like many."
    )
    shown = [
        {
            "sample": _uri(_image(samples[i], 96)),
            "ratio": ratios[i].item(),
            "near": [
                (_uri(_image(as_images(store.images[rows[m] : rows[m] + 1], CPU)[0], 96)), d)
                for m, d in zip(found[i, :NEAREST].tolist(), near[i].tolist(), strict=False)
            ],
        }
        for i in ratios.argsort(stable=True)[:ASKED].tolist()
    ]
    return {"rows": shown, "note": note, "around": near.shape[1]}


def _spaced(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of the numbers below `count`, evenly chosen."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _shrunk(images: Tensor) -> Tensor:
    """[N, P]  Images [N, C, H, W] averaged to few pixels."""
    size = min(COMPARED, images.shape[-1])
    return F.interpolate(images, size=(size, size), mode="area").flatten(1)


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """[N, M]  Root mean squared difference of each row of one and each of two."""
    far: Tensor = torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")
    return far / math.sqrt(one.shape[1])


def frames(run: Run, most: int) -> tuple[list[dict[str, Any]], int]:
    """Return the pictures of training, evenly chosen, and how many there are."""
    files = drawn(run)
    shown = [frame(file) for file in evenly(files, most)]
    return [each for each in shown if each is not None], len(files)


def frame(file: Path) -> dict[str, Any] | None:
    """Return a grid of samples and that of reconstructions beside it; without the first nothing."""
    read = {
        "samples": _read(file),
        "recon": _read(file.with_name(file.name.replace("step-", "recon-"))),
    }
    if read["samples"] is None:
        return None
    return {"step": step_of(file), **{name: p for name, p in read.items() if p}}


def _read(file: Path) -> dict[str, Any] | None:
    """Return a picture in a file, or nothing when there is none that can be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return picture(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def drawing(run: Run, recipe: Recipe) -> dict[str, str]:
    """Return what `vgx explain` draws of the run, as a picture, and in words.

    Raises `StorageError` when the run's files do not say enough for that.
    """
    explained = explain.of_run(run, recipe)
    coded = base64.b64encode(explain.svg(explained).encode()).decode()
    return {
        "uri": f"data:image/svg+xml;base64,{coded}",
        "alt": "; ".join(explain.chain(explained)[::2]),
    }
