"""The page of a run: one HTML file that needs nothing else.

`run_data` makes plain data of the run's files, `panels` of what its newest checkpoint draws, and
`html` makes the page of both. Every statement on the page comes from the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import vgx
from vgx.console import Console
from vgx.data.store import Store, cached, open_source, open_with_progress, watched_on
from vgx.engine.build import pick_device
from vgx.errors import noticing
from vgx.files import require_ending, write_file
from vgx.runs.summary import read_json
from vgx_report import panels, run_data
from vgx_report.html import PAGE, page


def write_page(
    run: vgx.Run, console: Console, device: str | None = None, out: Path | None = None
) -> Path:
    """Write the page of a run to `out`, by default to `report.html` in the run; return the file.

    Without a device, a run that was trained on the CPU is drawn there, and others on the best one.
    Raises `vgx.StorageError` when the run's files are not as vgx writes them, and
    `vgx.RecipeError` for a file that is no page by its ending.
    """
    if out is not None:
        require_ending(out, "a page", PAGE)
    registry = vgx.discover(run.plugin_files)
    recipe = vgx.load_recipe(run.recipe_file, (), registry)
    if device is None and read_json(run, "environment.json").get("device") == "cpu":
        device = "cpu"
    chosen = pick_device(device)
    return write(run, recipe, registry, images(run, recipe, console), chosen, out)


def write(
    run: vgx.Run,
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    store: Store | str,
    device: torch.device,
    out: Path | None = None,
) -> Path:
    """Write the page of a run with the images of its data; without them, `store` says why.

    Raises `vgx.StorageError` when the run's files are not as vgx writes them.
    """
    path = out or run.path / "report.html"
    computed, notices = _computed(run, recipe, registry, store, device)
    try:
        data = run_data.gather(run, recipe, computed, notices)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        message = f"{run.path}: its files are not as a run writes them"
        raise vgx.StorageError(f"{message}: {type(error).__name__}: {error}") from error
    write_file(path, page(data, "report"))
    return path


def _computed(
    run: vgx.Run,
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    store: Store | str,
    device: torch.device,
) -> tuple[dict[str, Any], list[str]]:
    """Return the panels of the newest checkpoint, and notices on what could not be computed."""
    computed: dict[str, Any] = {"samples": [], "step": None}
    notices: list[str] = []
    opened = None if isinstance(store, str) else store
    try:
        with noticing(notices):
            computed = panels.compute(run, recipe, registry, opened, device)
    except vgx.StorageError as error:
        notices.append(f"Nothing was drawn for this page: {error}")
    if isinstance(store, str):
        notices.append(f"What needs the images of the data is left out: {store}")
    return computed, notices


def images(run: vgx.Run, recipe: vgx.Recipe, console: Console) -> Store | str:
    """Return the images that a run was trained on, or why they cannot be had.

    They come from the cache; the data set is opened only when the cache has them no longer.
    """
    try:
        data = run.environment()["data"]
        store = cached(data.get("fingerprint", ""), recipe.image, watched_on(console))
        if store is None:
            source, _ = open_source(recipe.dataset, recipe.image)
            store = open_with_progress(source, recipe.dataset, recipe.image, console)
    except vgx.VgxError as error:
        return str(error)
    if store.content != data["content"]:
        return "the images of the data set are no longer those of the run"
    return store
