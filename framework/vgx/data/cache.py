"""The folder of stores: who builds there, who reads there, and how much it may hold.

The file of a store's pictures is its lock too. Its builder holds it alone, in a hidden place beside
the final one; readers hold it together; what is removed must be held by nobody. A lock ends with
its process, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vgx.errors import RecipeError, StorageError
from vgx.files import cache_dir, flush_directory

IMAGES, HASHES, LABELS, ABOUT = "images.u8", "hashes.u64", "labels.i64", "store.json"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_NAME = re.compile(r"[0-9a-f]{32}")
_HIDDEN = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")  # places of builders, and what is being removed
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Kept:
    """A store that the cache holds."""

    path: Path
    source: str  # as a person says it
    pictures: int
    shape: tuple[int, int]  # size and channels
    bytes: int
    used: float  # when it was last opened, in seconds since 1970

    @property
    def line(self) -> str:
        """What it is, in one line."""
        size, channels = self.shape
        pictures = f"{self.pictures:,} pictures of {size} x {size} x {channels}"
        return f"{self.source}: {pictures}, {in_words(self.bytes)}"


def folder() -> Path:
    """Return where the stores lie."""
    return cache_dir() / "images"


def limit() -> int:
    """Return how many bytes the stores may take: VGX_CACHE_MAX, or a fifth of the disk."""
    said = os.environ.get("VGX_CACHE_MAX")
    if said is None:
        there = next(path for path in (folder(), *folder().absolute().parents) if path.exists())
        return shutil.disk_usage(there).total // 5
    match = _SIZE.fullmatch(said.strip())
    if match is None:
        raise RecipeError(f"VGX_CACHE_MAX: {said!r} is no size; say one like 50GB or 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def in_words(count: int) -> str:
    """Return a number of bytes as a person says it."""
    return f"{count / 10**9:,.2f} GB" if count >= 10**9 else f"{count / 10**6:,.1f} MB"


def obtain(
    store: Path, build: Callable[[Path, BinaryIO], None], waiting: Callable[[], None]
) -> tuple[BinaryIO, bool]:
    """Return a store's pictures, open, and whether they were built for it just now.

    Of several processes that want the same store one builds it, in the place and file that `build`
    is told, and the others wait until it has come through or died. Nobody removes a store while the
    file, or a map of it, is open. Raises `OSError`, and `StorageError` for half a store.
    """
    built = said = False
    place = store.with_name(f".{store.name}")
    while (images := _opened(store)) is None:
        begun = _begin(store, place)
        if begun is None:
            if not said:
                waiting()
            said = True
            with suppress(FileNotFoundError), (place / IMAGES).open("rb") as theirs:
                fcntl.flock(theirs, fcntl.LOCK_SH)
            continue
        with begun:
            try:
                build(place, begun)
                place.rename(store)
            except BaseException:
                _discard(place)
                raise
            flush_directory(store.parent)
        built = True
    return images, built


def _opened(store: Path) -> BinaryIO | None:
    """Open a store's pictures, together with other readers; nothing when there is no store."""
    with suppress(FileNotFoundError):
        images = (store / IMAGES).open("rb")
        fcntl.flock(images, fcntl.LOCK_SH)
        if (store / ABOUT).is_file():  # not removed just before it was locked
            with suppress(OSError):  # in a cache that is another person's
                os.utime(store / ABOUT)
            return images
        images.close()
    return None


def _begin(store: Path, place: Path) -> BinaryIO | None:
    """Take the place to build a store in; nothing when it is taken, or the store there by now."""
    root = store.parent
    root.mkdir(parents=True, exist_ok=True)
    # Nobody looks at a place that is not yet locked. A file, since NFS locks no directory.
    with root.with_name("images.lock").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for left in root.glob(".*"):
            # Blocked: somebody builds there. Other errors: it is gone, or another person's.
            with suppress(OSError):
                if _HIDDEN.fullmatch(left.name):
                    _remove_unheld(left)
        if store.exists():
            if not {IMAGES, ABOUT} <= {file.name for file in store.iterdir()}:
                raise StorageError(f"{store}: damaged; delete it, and it is made again")
            return None
        try:
            place.mkdir()
        except FileExistsError:
            with suppress(BlockingIOError):
                _remove_unheld(place)  # says why, if it could not be removed before
            return None
        images = (place / IMAGES).open("wb")
        fcntl.flock(images, fcntl.LOCK_EX)
        return images


def _remove_unheld(place: Path) -> None:
    """Remove a store, or what was left of one. Raises `BlockingIOError` when somebody has it."""
    with (place / IMAGES).open("ab") as images:
        fcntl.flock(images, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _discard(place)


def _discard(place: Path) -> None:
    """Remove a place that we hold; nobody finds half of it under its name."""
    name = place.name.strip(".")[:32]
    gone = place.rename(place.with_name(f".{name}.{uuid.uuid4().hex[:8]}"))
    shutil.rmtree(gone, ignore_errors=True)


def stores() -> list[Kept]:
    """Return the stores, the longest unused first; what is none of them is passed over."""
    known, found = {IMAGES, HASHES, LABELS, ABOUT}, []
    for path in folder().glob("*"):
        # Whatever else somebody laid there is nothing of ours.
        with suppress(OSError, ValueError, LookupError, TypeError):
            files = [*path.iterdir()]
            if not _NAME.fullmatch(path.name) or {file.name for file in files} - known:
                continue
            about = json.loads((path / ABOUT).read_text())
            shape = int(about["size"]), int(about["channels"])
            size, used = sum(file.stat().st_size for file in files), (path / ABOUT).stat().st_mtime
            found.append(Kept(path, str(about["source"]), int(about["count"]), shape, size, used))
    return sorted(found, key=lambda kept: kept.used)


def remove(most: int = 0) -> list[Kept]:
    """Remove stores, the longest unused first, until the rest take at most so many bytes.

    Those that somebody has open stay, and those that may not be removed. Returns what went.
    """
    kept = stores()
    total, gone = sum(store.bytes for store in kept), []
    for store in kept:
        if total <= most:
            break
        with suppress(OSError):
            _remove_unheld(store.path)
            gone.append(store)
            total -= store.bytes
    return gone
