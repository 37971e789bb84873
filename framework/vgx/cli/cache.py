"""Commands around what vgx keeps for later: cache."""

from __future__ import annotations

import time

import rich_click as click

from vgx.cli import common


@click.command()
@click.option("--clear", is_flag=True, help="Remove the stores that no process has open.")
@common
def cache(clear: bool) -> None:
    """List the stores of decoded pictures: what of, how large, when last used."""
    from vgx.console import Voice
    from vgx.data import cache as keeper

    voice = Voice()
    gone = keeper.remove() if clear else []
    for store in gone:
        voice.say(f"Removed {store.line}")
    kept = keeper.stores()
    rows = [
        (
            store.source,
            " x ".join(map(str, (store.shape[0], *store.shape))),
            f"{store.images:,}",
            keeper.format_bytes(store.bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used)),
        )
        for store in kept
    ]
    if rows:
        voice.table(("source", "pixels", "pictures", "size", "last used"), rows)
    total = keeper.format_bytes(sum(store.bytes for store in kept))
    if clear:
        freed = keeper.format_bytes(sum(store.bytes for store in gone))
        stay = f"{len(kept):,} in use, {total}" if kept else "none is left"
        voice.say(f"{len(gone):,} removed, {freed}; {stay}, in {keeper.folder()}")
        return
    most = keeper.format_bytes(keeper.limit())
    stores = "1 store" if len(kept) == 1 else f"{len(kept):,} stores"
    voice.say(f"{stores}, {total} of at most {most}, in {keeper.folder()}")


COMMANDS = (cache,)
