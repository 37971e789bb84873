"""A page per run: one HTML file that carries all it shows and asks nobody for anything.

`account` makes plain data of the run's files, `exhibits` of what its newest checkpoint draws, and
`page` shows them. Every claim on the page comes from the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vgx.console import Voice
from vgx.data.store import Store, open_source, open_with_progress
from vgx.errors import StorageError, VgxError, noticing
from vgx.files import write_file
from vgx.parts.registry import Registry
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.report import panels as exhibits
from vgx.report import run_data as account
from vgx.report.html import page
from vgx.runs.directory import Run


def write(
    run: Run,
    registry: Registry,
    store: Store | str,
    device: torch.device,
    out: Path | None = None,
) -> Path:
    """Write a run's page; instead of the pictures of the data, say why there are none.

    Raises `StorageError` when the run's files are not what a run writes.
    """
    path = out or run.path / "report.html"
    recipe = load_recipe(run.recipe_file, (), registry)
    shown, notices = _shown(run, recipe, registry, store, device)
    try:
        data = account.gather(run, recipe, shown, notices)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        message = f"{run.path}: its files are not as a run writes them"
        raise StorageError(f"{message}: {type(error).__name__}: {error}") from error
    write_file(path, page(data, "report"))
    return path


def _shown(
    run: Run, recipe: Recipe, registry: Registry, store: Store | str, device: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Return what the newest checkpoint shows, and what stood in its way."""
    shown: dict[str, Any] = {"samples": [], "step": None}
    notices: list[str] = []
    try:
        with noticing(notices):
            there = store if isinstance(store, Store) else None
            shown = exhibits.show(run, recipe, registry, there, device)
    except StorageError as error:
        notices.append(f"Nothing was drawn for this page: {error}")
    if isinstance(store, str):
        notices.append(f"What needs the pictures of the data is left out: {store}")
    return shown, notices


def pictures(run: Run, recipe: Recipe, voice: Voice) -> Store | str:
    """Return the pictures that a run was trained on, or why they are not to be had."""
    try:
        source, _ = open_source(recipe.dataset, recipe.image)
        store = open_with_progress(source, recipe.dataset, recipe.image, voice)
    except VgxError as error:
        return str(error)
    if store.content != run.environment()["data"]["content"]:
        return "the data set's pictures are no longer those of the run"
    return store
