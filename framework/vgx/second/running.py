"""`vgx fit` and `vgx encode`: the second stage of a trained run, and the codes of any images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vgx.console import Console
from vgx.data.store import Store, name_of
from vgx.engine.build import pick_device
from vgx.errors import RecipeError
from vgx.evaluation.choice import part_of
from vgx.evaluation.evaluate import with_labels_of
from vgx.files import require_new, write_file
from vgx.parts.kinds import Labelled
from vgx.recipe.load import differences, dump_recipe, load_recipe
from vgx.recipe.model import Eval, Recipe
from vgx.recipe.places import dataset_at
from vgx.runs import exported, reading
from vgx.runs.directory import Run
from vgx.runs.moved import Command, looking_back, other_images
from vgx.runs.trust import registry_of
from vgx.sampling.model import load_model
from vgx.second import fitting, kept
from vgx.second.codes import write_codes
from vgx.second.folder import load_latents
from vgx.training import environment
from vgx.training.ending import call_plugins, note_done
from vgx.training.preparing import open_images, read_images
from vgx.training.session import refuse_lost_parts

SETS = ("prior", "sampler")  # fields of a recipe that `vgx fit` may set


def fit_run(
    run: Run, overrides: Mapping[str, Any] | Sequence[str], data: str | Path | None,
    device: str | None, console: Console,
) -> Recipe:  # fmt: skip
    """Train the prior of a run that is trained; `vgx fit`. Return the run's recipe, as it is now.

    `overrides` may set fields of the prior and of the sampler, which the run keeps. `data` is where
    its images lie now. Raises `RecipeError` for other fields, and for a run without a prior.
    """
    environment.one_process("vgx fit")
    registry = registry_of(run)
    stored = load_recipe(run.recipe_file, (), registry)
    recipe = load_recipe(run.recipe_file, overrides, registry, data, moved=True)
    refuse_lost_parts(recipe, registry)
    new = recipe.model_copy(update={"dataset": stored.dataset})
    fields = differences(stored, new)
    if wrong := [name for name in fields if name.partition(".")[0] not in SETS]:
        text = f"vgx fit sets fields of prior and sampler alone, not {wrong[0]}"
        raise RecipeError(f"{run.path}: {text}; start a new run for that")
    if recipe.prior is None:
        offered = ", ".join(part.type for _, part in registry.offers("prior"))
        text = f"its recipe has no prior; add one: vgx fit {run.short} --set prior=TYPE"
        raise RecipeError(f"{run.path}: {text}. There are: {offered}")
    if exported.is_exported(run.path):
        raise RecipeError(f"{run.path}: an exported model; make a run of it first: vgx import")
    if data is not None and _imported(run):
        _require_same_codes(run, recipe)

    def keep() -> None:
        if fields:
            write_file(run.place("recipe.yaml"), dump_recipe(new))

    with run.held():
        images = partial(_images, run, recipe, console)
        fitting.fit(run, recipe, images, registry, pick_device(device), console, built=keep)
        note_done(run)
    call_plugins(run, registry, console)
    return new


def _images(run: Run, recipe: Recipe, console: Console) -> Store:
    """Return the images of a run. Raises `RecipeError` when they are others now.

    Nothing says which images an imported model was trained on, so it takes those of its recipe.
    """
    again = Command(f"vgx fit {run.short}", takes_set=False)
    with looking_back(run, recipe, again):
        _, source, _ = open_images(recipe, [], console)
    store = read_images(recipe, source, console)
    if _imported(run):
        console.warn(f"{run.path}: imported; its prior learns images of {name_of(recipe.dataset)}")
    elif store.content != (before := run.environment()["data"])["content"]:
        raise RecipeError(other_images(run, recipe.dataset, before, store, again))
    return store


def _imported(run: Run) -> bool:
    """Return whether nothing says which images a run was trained on."""
    made = reading.environment(run.path)
    return made is not None and "data" not in made


def _require_same_codes(run: Run, recipe: Recipe) -> None:
    """Raise `RecipeError` when the prior of an imported model learns other images already."""
    codes, now = run.place(kept.FOLDER, fitting.CODES), name_of(recipe.dataset)
    if codes.exists() and (before := load_latents(codes).about["data"]["dataset"]) != now:
        advice = f"to train one on {now}, remove {codes.parent}"
        raise RecipeError(f"{run.path}: its prior learns images of {before}; {advice}")


def encode(
    run: Run, data: str, out: Path, device: str | None, console: Console, *, best: bool
) -> int:
    """Write the codes of all images of a place as a new folder, and return how many there are.

    `vgx encode`. `data` is also a data set as in a recipe, in braces. An encoder that takes labels
    gets those that the run has for classes of the same names. Raises `StorageError` for a folder
    that has something in it, and `RecipeError` for a class that the run lacks.
    """
    require_new(out)
    registry = registry_of(run)
    recipe = load_recipe(run.recipe_file, (), registry)
    named = recipe.encoder is not None and recipe.encoder.conditional
    given = data if data[:1] == "{" else dataset_at(data, registry)
    dataset = part_of(recipe, "dataset", given, registry, "DATA")
    recipe = recipe.model_copy(update={"dataset": dataset})
    model = load_model(run, recipe, pick_device(device), ("encoder",), best=best)
    recipe, source, _ = open_images(recipe, [], console)
    if not (named or isinstance(source, Labelled)):
        recipe = recipe.model_copy(update={"image": replace(recipe.image, classes=0)})
    # Nothing is held out.
    store = read_images(recipe.model_copy(update={"eval": Eval()}), source, console)
    store = with_labels_of(store, run, recipe) if named else store
    count = len(store.images)
    with console.progress("Encoding", count) as advance:
        write_codes(model, store, np.arange(count), recipe.dataset, out, lambda n: advance(n, ()))
    return count
