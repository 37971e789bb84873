"""What figures of images and latents need of a run: its networks, and images of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import vgx
from vgx.console import Console
from vgx.data.peek import peek, spread
from vgx.data.split import held_out
from vgx.data.store import Store, open_source
from vgx.evaluation.latents import Latents
from vgx.runs.directory import Run
from vgx.runs.trust import registry_of
from vgx.sampling.model import load_model
from vgx_report import panels
from vgx_report.run_page import device_for
from vgx_report.run_page import images as images_of_run

Place = str | Path | None  # of other images than a run's
PEEKED = 600  # images of another data set that are decoded, at most


@dataclass(frozen=True, eq=False)
class Trained:
    """A run with the networks of its newest checkpoint."""

    run: Run
    recipe: vgx.Recipe
    model: vgx.Model

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.model.codes.device


def opened(run: Run, device: str | None) -> Trained:
    """Return a run with its networks; without a device on the CPU, if it was trained there.

    Raises `RecipeError` for a run without an encoder, and `StorageError` without a checkpoint.
    """
    recipe = vgx.load_recipe(run.recipe_file, (), registry_of(run))
    if recipe.encoder is None:
        raise vgx.RecipeError(
            f"{run.path}: the recipe has no encoder, so it has no latents to draw"
        )
    networks = ("encoder", "decoder")
    return Trained(run, recipe, load_model(run, recipe, device_for(run, device), networks))


def images_for(trained: Trained, data: Place) -> Store:
    """Return images at the size of a run: those that it was trained on, or those of a place.

    The first come from the cache alone, since a recipe may be a stranger's. `data` is a place as
    the option --data takes it; at most 600 of its images are decoded, evenly chosen. Raises
    `StorageError` that says what to do when the cache does not have the images of the run.
    """
    run, recipe = trained.run, trained.recipe
    if data is None:
        store = images_of_run(run, recipe, Console())
        if isinstance(store, str):
            advice = "or give other images: --data PLACE (in Python: data=)"
            raise vgx.StorageError(f"{run.path}: its images are not here: {store}; {advice}")
        return store
    dataset = vgx.load_recipe(run.recipe_file, (), registry_of(run), data).dataset
    source, _ = open_source(dataset, recipe.image)
    return peek(source, recipe.image, PEEKED, spread(len(source), PEEKED), skip_bad=True)


def trained_rows(trained: Trained, store: Store, data: Place) -> NDArray[np.int64]:
    """Return the rows of a store that the run was trained on; all rows of other images."""
    if data is not None:
        return np.arange(len(store.images))
    return np.flatnonzero(~held_out(store.hashes, trained.recipe.eval.holdout))


def held_rows(trained: Trained, store: Store, data: Place) -> tuple[NDArray[np.int64], str]:
    """Return the rows that the run never saw, or all if it saw all; and what they are."""
    rows = np.arange(len(store.images))
    if data is not None:
        return rows, f"images of {Path(data).name}"
    held = held_out(store.hashes, trained.recipe.eval.holdout)
    return (rows[held], "held-out images") if held.any() else (rows, "training images")


def encoded(trained: Trained, store: Store, rows: NDArray[np.int64]) -> Latents:
    """Return the posteriors of some images of a store."""
    return panels.encoded(trained.model, store, rows)
