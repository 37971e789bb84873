"""Commands that list what vgx keeps on the disk: list, cache."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from vgx.cli.options import common, runs_option


@click.command(name="list")
@runs_option
@common
def list_runs(out: Path | None) -> None:
    """List the runs, newest first: state, steps, age, size, best metric."""
    from vgx.console import Console
    from vgx.data.cache import format_bytes
    from vgx.recipe.yaml import short
    from vgx.runs import directory, summary

    console, now = Console(), time.time()
    entries = [summary.summarize(run) for run in reversed(directory.every(out))]
    if not entries:
        console.print(f"{directory.runs_dir(out)}: no runs here yet; make one with: vgx run RECIPE")
        return
    rows = [
        (
            entry.name,
            short(entry.state),
            f"{entry.step:,}" + (f" of {entry.of:,}" if entry.of else ""),
            summary.age(now - entry.since),
            format_bytes(entry.bytes),
            entry.best,
        )
        for entry in entries
    ]
    console.table(("run", "state", "step", "age", "size", "best metric"), rows)


@click.command(name="cache")
@click.option("--clear", is_flag=True, help="Remove the stores that no process has open.")
@common
def list_stores(clear: bool) -> None:
    """List the stores of decoded images: source, size, when last used."""
    from vgx.console import Console
    from vgx.data import cache

    console = Console()
    removed = cache.remove() if clear else []
    for store in removed:
        console.print(f"Removed {store.line}")
    kept = cache.stores()
    rows = [
        (
            store.source,
            " x ".join(map(str, (store.shape[0], *store.shape))),
            f"{store.images:,}",
            cache.format_bytes(store.bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used)),
        )
        for store in kept
    ]
    if rows:
        console.table(("source", "pixels", "images", "size", "last used"), rows)
    total = cache.format_bytes(sum(store.bytes for store in kept))
    if clear:
        freed = cache.format_bytes(sum(store.bytes for store in removed))
        left = f"{len(kept):,} in use, {total}" if kept else "none is left"
        console.print(f"{len(removed):,} removed, {freed}; {left}, in {cache.folder()}")
        return
    stores = "1 store" if len(kept) == 1 else f"{len(kept):,} stores"
    limit = cache.format_bytes(cache.limit())
    console.print(f"{stores}, {total} of at most {limit}, in {cache.folder()}")


COMMANDS = (list_runs, list_stores)
