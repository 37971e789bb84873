"""What the page plays with: latents that become its faces, and directions to change them in.

Letters: N latents, Z the latent shape, D the number of its values, P values of a small image.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

import vgx
from vgx.runs.directory import Run
from vgx.runs.trust import registry_of
from vgx.sampling.draw import Latents, Prepared, draw_latents, open_sampler
from vgx_share.latents import far_from_stored

SHOWN = 60  # latents that the page can show
PIECE = 16  # latents that are decoded at once
DRAWN = 256  # latents from which the strongest directions are found
SMALL = 16  # pixels of a side, at most, where images are compared
STRONGEST = 6  # directions at most of each kind
WEAK = 0.05  # of the strongest direction's effect: weaker ones are left out
MANY = 16  # stored latents of a class, at least, for their mean to be on the page
SPAN = 3.0  # the ends of a slider, in standard deviations


@dataclass(frozen=True, eq=False)
class Faces:
    """Latents for the corners of the triangle, and how they are mixed."""

    z: Tensor  # [N, *Z]
    labels: Tensor | None  # [N]  with which they were drawn, if the decoder takes labels
    origin: str  # where they come from, as a sentence
    renormalise: bool  # mixtures keep the variance of the latents, see the sampler weighted-mix


@dataclass(frozen=True, eq=False)
class Direction:
    """A change of a latent with a name: less of it is to the left, more to the right."""

    left: str
    right: str
    change: Tensor  # [*Z]  one standard deviation of the latents


def draw_faces(run: Run, *, best: bool = False) -> tuple[vgx.Model, Faces]:
    """Return the run's decoder and new latents: those of `DRAWN` that are far from stored ones.

    The recipe's sampler draws them if it draws single images of which at least `SHOWN` are far;
    else `weighted-mix` does, or `prior` when too few latents are stored. Raises `RecipeError` when
    none of them does.
    """
    # The page says less of an error: it is sent to others, and messages may name paths.
    refused, errors = list[str](), list[str]()
    own = vgx.load_recipe(run.recipe_file, (), registry_of(run)).sampler
    for name, settings in ((None, {}), ("weighted-mix", {"anchors": "fresh"}), ("prior", {})):
        if own.own_images and name in (None, own.type):  # no page opens what a recipe names
            refused.append(f"{own.type} opens images of its own")
            continue
        try:
            model, prepared = open_sampler(run, name, settings, "cpu", best=best)
            # A seed for each: some samplers mix the same stored latents for all images of a seed.
            drawn = [draw_latents(prepared, 1, seed) for seed in range(DRAWN)]
        except vgx.RecipeError as error:
            refused.append(f"{name or own.type} cannot draw here")
            errors.append(str(error))
            continue
        if prepared.part.row_length is not None:
            refused.append(f"{prepared.part.type} draws rows of images")
            continue
        far = far_from_stored(torch.cat([each.z for each in drawn]), prepared.codes)  # [DRAWN]
        drawn = [each for each, shown in zip(drawn, far, strict=True) if shown]
        if len(drawn) >= SHOWN:
            for text in errors:
                warnings.warn(text, vgx.Notice, stacklevel=2)
            return model, _faces(prepared, drawn, refused)
        as_stored = "draws latents of training images as they are, or nearly so"
        refused.append(f"{prepared.part.type} {as_stored}")
    raise vgx.RecipeError(f"{run.path}: nothing can be drawn: {'; '.join(refused + errors)}")


def _faces(prepared: Prepared, drawn: Sequence[Latents], refused: Sequence[str]) -> Faces:
    """Return drawn latents, of which each has a seed of its own."""
    part = prepared.part
    labels = [each.labels for each in drawn if each.labels is not None]
    origin = f"drawn by the sampler {part.type}" + "".join(f" ({why})" for why in refused)
    if isinstance(prepared.sampler, vgx.Decodes):
        origin += ", and decoded without what this sampler changes in decoding"
    return Faces(
        z=torch.cat([each.z for each in drawn]),
        labels=torch.cat(labels) if labels else None,
        origin=f"{origin}; none is the latent of a training image",
        renormalise=bool(part.model_dump().get("renormalise", part.least_codes == 0)),
    )


def stored_faces(model: vgx.Model, faces: Faces) -> Faces:
    """Return stored latents of training images, the newest, which are mixed as `faces` are."""
    if model.recipe.encoder is None or not len(model.codes):
        raise vgx.RecipeError(f"{model.recipe.name}: the run has stored no latents of images")
    z = model.codes[-SHOWN:].cpu()
    labels = None if model.labels is None or faces.labels is None else model.labels[-SHOWN:].cpu()
    origin = "stored latents of training images, which are derived from these images"
    return replace(faces, z=z, labels=labels, origin=origin)


def strongest_directions(model: vgx.Model, faces: Faces) -> list[Direction]:
    """Return the directions of the latents that change the images most.

    They are the left singular vectors of the covariance of latents and small images (partial least
    squares, Bookstein 1994), the strongest first. To the right the image becomes brighter.
    """
    z = faces.z.flatten(1).double()  # [N, D]
    images = _small(model, faces)  # [N, P]
    centred = z - z.mean(0)
    covariance = centred.T @ (images - images.mean(0)) / len(z)  # [D, P]
    left, sizes, right = torch.linalg.svd(covariance, full_matrices=False)
    found = []
    for k in range(min(STRONGEST, len(sizes))):
        if sizes[k] <= WEAK * sizes[0]:
            break
        direction = left[:, k] * (1.0 if right[k].sum() >= 0 else -1.0)  # [D]
        change = direction * (centred @ direction).std()
        name = f"direction {k + 1}"
        found.append(Direction("", name, change.reshape(faces.z.shape[1:]).float()))
    return found


def _small(model: vgx.Model, faces: Faces) -> Tensor:
    """[N, P]  The images of latents, averaged to few pixels."""
    pieces = []
    for start in range(0, len(faces.z), PIECE):
        labels = None if faces.labels is None else faces.labels[start : start + PIECE]
        images = model.decode(faces.z[start : start + PIECE], labels)  # [n, C, H, W]
        size = [min(SMALL, side) for side in images.shape[2:]]
        pieces.append(F.interpolate(images, size=size, mode="area").flatten(1).double())
    return torch.cat(pieces)


def class_directions(model: vgx.Model, names: Sequence[str]) -> list[Direction]:
    """Return the directions from all other stored latents to those of one class, clearest first.

    Each is a difference of two means of at least `MANY` stored latents, so no single training image
    is in it. Two classes have one direction. A decoder that takes labels needs none of them.
    """
    if model.labels is None or model.recipe.decoder.conditional:
        return []
    codes, labels = model.codes.cpu().flatten(1).double(), model.labels.cpu()  # [K, D], [K]
    found = []
    for label, name in enumerate(names):
        own, others = codes[labels == label], codes[labels != label]
        if min(len(own), len(others)) < MANY:
            continue
        difference = own.mean(0) - others.mean(0)  # [D]
        size = difference.norm()
        if size == 0:
            continue
        direction = difference / size
        spread = ((own @ direction).var() / 2 + (others @ direction).var() / 2).sqrt()
        change = direction * (codes @ direction).std()
        other = names[1 - label] if len(names) == 2 else f"not {name}"
        clear = float(size / spread) if spread > 0 else float("inf")
        shape = model.codes.shape[1:]
        found.append((clear, Direction(other, name, change.reshape(shape).float())))
    if len(names) == 2:
        found = found[-1:]
    found.sort(key=lambda pair: -pair[0])
    return [direction for _, direction in found[:STRONGEST]]
