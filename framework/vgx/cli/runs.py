"""Commands that list what vgx keeps on the disk: list, cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from vgx.cli.options import common, runs_option

if TYPE_CHECKING:
    from vgx.runs.reading import Parent


@click.command(name="list")
@click.option("--tree", is_flag=True, help="Show each run below the one that it comes from.")
@runs_option
@common
def list_runs(tree: bool, out: Path | None) -> None:
    """List the runs, newest first: state, steps, age, size, best metric, note."""
    from vgx.console import Console
    from vgx.data.cache import format_bytes
    from vgx.output import short
    from vgx.runs import directory, summary

    console, now = Console(), time.time()
    entries = [summary.summarize(run) for run in reversed(directory.every(out))]
    if not entries:
        console.print(f"{directory.runs_dir(out)}: no runs here yet; make one with: vgx run RECIPE")
        return
    lined = summary.tree(entries) if tree else [("", entry) for entry in entries]
    rows = [
        (
            line + entry.name,
            short(entry.state),
            f"{entry.step:,}" + (f" of {entry.of:,}" if entry.of else ""),
            summary.age(now - entry.since),
            format_bytes(entry.bytes),
            entry.best,
            *((_origin(entry.parent),) if tree else ()),
            short(entry.note),
        )
        for line, entry in lined
    ]
    header = ["run", "state", "step", "age", "size", "best metric"]
    header += ["comes from"] * tree + ["note"]
    if not any(entry.note for entry in entries):
        header, rows = header[:-1], [row[:-1] for row in rows]
    console.table(header, rows)


def _origin(parent: Parent | None) -> str:
    """Return where a run comes from, for people."""
    if parent is None:
        return ""
    what = "" if parent["how"] == "fork" else "weights of "
    return f"{what}{parent['run']} at step {parent['step']:,}"


@click.command(name="cache")
@click.option("--clear", is_flag=True, help="Remove everything that no process uses.")
@common
def list_stores(clear: bool) -> None:
    """List the stores of decoded images and other cached files: size, when last used."""
    from vgx.console import Console
    from vgx.data import cache
    from vgx.files import cache_dir

    console = Console()
    removed = cache.remove() if clear else []
    for store in removed:
        console.print(f"Removed {store.line}")
    kept = cache.content()
    rows = [
        (
            store.source,
            store.pixels if store.images else "-",
            f"{store.images:,}" if store.images else "-",
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
        console.print(f"{len(removed):,} removed, {freed}; {left}, in {cache_dir()}")
        return
    stores = sum(store.path.parent == cache.folder() for store in kept)
    count = "1 store" if stores == 1 else f"{stores:,} stores"
    if len(kept) > stores:
        count += f" and {len(kept) - stores:,} more"
    limit = cache.format_bytes(cache.limit())
    console.print(f"{count}, {total} of at most {limit}, in {cache_dir()}")


COMMANDS = (list_runs, list_stores)
