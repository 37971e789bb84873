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
from vgx.data.store import Store, cached, name_of, watched_on
from vgx.engine.build import pick_device
from vgx.errors import noticing
from vgx.files import require_ending, write_file
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.trust import registry_of
from vgx_report import panels, run_data
from vgx_report.html import PAGE, page

EXPLORER = "explore.html"  # in the run, when `vgx explore` has made it
LEFT_OUT = "What needs the images of the data is left out: {why}"


def write_page(
    run: Run, console: Console, device: str | None = None, out: Path | None = None
) -> Path:
    """Write the page of a run to `out`, by default to `report.html` in the run; return the file.

    Without a device, a run that was trained on the CPU is drawn there, and others on the best one.
    Raises `vgx.RecipeError` for a file that is no page by its ending, and when the run's recipe
    cannot be read.
    """
    if out is not None:
        require_ending(out, "a page", PAGE)
    registry = registry_of(run)
    recipe = vgx.load_recipe(run.recipe_file, (), registry)
    chosen, store = device_for(run, device), images(run, recipe, console)
    if isinstance(store, str):
        console.warn(LEFT_OUT.format(why=store))
    return write(run, recipe, registry, store, chosen, out)


def device_for(run: Run, device: str | None) -> torch.device:
    """Return the device that draws: the CPU for a run of the CPU, unless another one is named."""
    made = reading.unless_damaged(reading.environment, run.path) or {}
    return pick_device("cpu" if device is None and made.get("device") == "cpu" else device)


def write(
    run: Run,
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    store: Store | str,
    device: torch.device,
    out: Path | None = None,
) -> Path:
    """Write the page of a run with the images of its data; without them, `store` says why.

    A damaged file of the run is left out, and the page says so.
    """
    path = out or run.place("report.html")
    computed, notices = _computed(run, recipe, registry, store, device)
    data = run_data.gather(run, recipe, computed, notices)
    beside = path.resolve().parent == run.path.resolve() and (run.path / EXPLORER).is_file()
    data["explorer"] = EXPLORER if beside else None  # a page that was moved would link to nothing
    write_file(path, page(data, "report"))
    return path


def _computed(
    run: Run,
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
        notices.append(LEFT_OUT.format(why=store))
    return computed, notices


def images(run: Run, recipe: vgx.Recipe, console: Console) -> Store | str:
    """Return the images that a run was trained on, or why they cannot be had.

    They come from the cache alone: the recipe may be a stranger's, so a page opens no data set.
    """
    try:
        data = run.environment()["data"]
        if data.get("streamed"):
            return "they are streamed, and a page opens no data set"
        store = cached(data.get("fingerprint", ""), recipe.image, watched_on(console))
    except vgx.VgxError as error:
        return str(error)
    if store is None:
        again = f"vgx eval {run.short} opens the data set {name_of(recipe.dataset)}"
        return f"the cache does not have them; {again} and fills it, then make the page again"
    if store.content != data["content"]:
        return "the images of the data set are no longer those of the run"
    return store
