"""The folder of stores: who builds there, who reads there, and how much it may hold.

The file of a store's images is its lock too. A builder holds it exclusively, in a hidden folder
beside the final one; readers share it; a store is removed only when nobody holds it. A lock ends
with its process, however that ends.
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
_HIDDEN = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")  # folders of builders, and what is being removed
_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?) ?([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class CachedStore:
    """A store in the cache, as a list shows it."""

    path: Path
    source: str  # the data set and its fields
    images: int
    shape: tuple[int, int]  # size and channels
    bytes: int
    used: float  # when it was last opened, in seconds since 1970

    @property
    def line(self) -> str:
        """The store in one line of text."""
        size, channels = self.shape
        images = f"{self.images:,} images of {size} x {size} x {channels}"
        return f"{self.source}: {images}, {format_bytes(self.bytes)}"


def folder() -> Path:
    """Return the folder of the stores."""
    return cache_dir() / "images"


def limit() -> int:
    """Return how many bytes the stores may take: VGX_CACHE_MAX, or a fifth of the disk."""
    text = os.environ.get("VGX_CACHE_MAX")
    if text is None:
        parents = (folder(), *folder().absolute().parents)
        existing = next(path for path in parents if path.exists())
        return shutil.disk_usage(existing).total // 5
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise RecipeError(f"VGX_CACHE_MAX: {text!r} is no size; write one like 50GB or 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def format_bytes(count: int) -> str:
    """Return a number of bytes as MB or GB."""
    return f"{count / 10**9:,.2f} GB" if count >= 10**9 else f"{count / 10**6:,.1f} MB"


def obtain(
    store: Path, build: Callable[[Path, BinaryIO], None], waiting: Callable[[], None]
) -> tuple[BinaryIO, bool]:
    """Return the open file of a store's images, and whether this call has built the store.

    Of several processes that want the same store one builds it: `build` is called with a folder and
    the open file of images in it. The others wait until it is ready or its builder has died;
    `waiting` is called once. Nobody removes a store while its file, or a map of it, is open. Raises
    `OSError`, and `StorageError` for a store of which files are missing.
    """
    built = waited = False
    place = store.with_name(f".{store.name}")
    while (images := open_images(store)) is None:
        file = _begin(store, place)
        if file is None:
            if not waited:
                waiting()
            waited = True
            with suppress(FileNotFoundError), (place / IMAGES).open("rb") as other:
                fcntl.flock(other, fcntl.LOCK_SH)
            continue
        with file:
            try:
                build(place, file)
                place.rename(store)
            except BaseException:
                _discard(place)
                raise
            flush_directory(store.parent)
        built = True
    return images, built


def open_images(store: Path) -> BinaryIO | None:
    """Open a store's images, together with other readers; None when there is no store."""
    with suppress(FileNotFoundError):
        images = (store / IMAGES).open("rb")
        fcntl.flock(images, fcntl.LOCK_SH)
        if (store / ABOUT).is_file():  # not removed just before it was locked
            with suppress(OSError):  # in a cache of another user
                os.utime(store / ABOUT)
            return images
        images.close()
    return None


def _begin(store: Path, place: Path) -> BinaryIO | None:
    """Make the folder to build a store in; None when another builds there, or the store exists."""
    root = store.parent
    root.mkdir(parents=True, exist_ok=True)
    # Nobody may see a folder that is not yet locked. A file, since NFS locks no directory.
    with root.with_name("images.lock").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for left in root.glob(".*"):
            # Blocked: another process builds there. Other errors: it is gone, or another user's.
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
                _remove_unheld(place)  # raises the reason, if it could not be removed before
            return None
        images = (place / IMAGES).open("wb")
        fcntl.flock(images, fcntl.LOCK_EX)
        return images


def _remove_unheld(place: Path) -> None:
    """Remove a store, or the rest of one. Raises `BlockingIOError` when it is held."""
    with (place / IMAGES).open("ab") as images:
        fcntl.flock(images, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _discard(place)


def _discard(place: Path) -> None:
    """Remove a folder that this process holds; under its name it is never seen half removed."""
    name = place.name.strip(".")[:32]
    gone = place.rename(place.with_name(f".{name}.{uuid.uuid4().hex[:8]}"))
    shutil.rmtree(gone, ignore_errors=True)


def stores() -> list[CachedStore]:
    """Return the stores, the longest unused first; other files and folders are passed over."""
    known, cached = {IMAGES, HASHES, LABELS, ABOUT}, []
    for path in folder().glob("*"):
        # A folder that is no store raises one of these.
        with suppress(OSError, ValueError, LookupError, TypeError):
            files = [*path.iterdir()]
            if not _NAME.fullmatch(path.name) or {file.name for file in files} - known:
                continue
            about = json.loads((path / ABOUT).read_text())
            shape = int(about["size"]), int(about["channels"])
            size, used = sum(file.stat().st_size for file in files), (path / ABOUT).stat().st_mtime
            source, count = str(about["source"]), int(about["count"])
            cached.append(CachedStore(path, source, count, shape, size, used))
    return sorted(cached, key=lambda store: store.used)


def remove(max_bytes: int = 0) -> list[CachedStore]:
    """Remove stores, the longest unused first, until the rest take at most `max_bytes` bytes.

    Stores that are open stay, and those that may not be removed. Returns the removed ones.
    """
    remaining = stores()
    total, removed = sum(store.bytes for store in remaining), []
    for store in remaining:
        if total <= max_bytes:
            break
        with suppress(OSError):
            _remove_unheld(store.path)
            removed.append(store)
            total -= store.bytes
    return removed
