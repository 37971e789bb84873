"""The cache: who builds and reads stores there, and how much it may hold.

The file of a store's images is its lock too. A builder holds it exclusively, in a hidden folder
beside the final one; readers share it; a store is removed only when nobody holds it. A lock ends
with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from vgx.data.sums import ABOUT, BROKEN, FILES, IMAGES, DamagedError, forget, read_about
from vgx.errors import Notice, RecipeError, StorageError
from vgx.files import (
    cache_dir,
    existing,
    flush_directory,
    open_regular,
    write_file,
)

INCOMPLETE = ".incomplete"  # how the hub's library ends the name of a folder it writes
Opened = TypeVar("Opened")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Says to programs that make backups, and to data sets of files, that a folder is a cache
# (https://bford.info/cachedir/).
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of vgx: all can be made again.\n"
_NAME = re.compile(r"[0-9a-f]{32}")
_HIDDEN = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")  # folders of builders, and what is being removed
# Folders with what was fetched: where they lie, the only files they have, how a list calls them.
_FETCHED = (
    ("models/*--*", r"[\w.-]+\.txt|[0-9a-f]{7,64}/[\w.-]+", "model of the hub: {}"),
    ("weights", r"[\w-]+\.(safetensors|sha256|pth)", "weights of networks"),
    ("onnxruntime-web-*", r"ort[\w.-]+", "engine of vgx explore: {}"),
)
_SIZE = re.compile(r"(\d{1,30}(?:\.\d+)?) ?([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Cached:
    """A store, or something else in the cache, as a list shows it."""

    path: Path
    source: str  # of a store: the data set and its fields
    images: int  # 0 for all but stores
    shape: tuple[int, int, int]  # height, width and channels
    bytes: int
    used: float  # when it was last opened, in seconds since 1970

    @property
    def pixels(self) -> str:
        """Height, width and channels as text."""
        return " x ".join(map(str, self.shape))

    @property
    def line(self) -> str:
        """It in one line of text."""
        if not self.images:
            return f"{self.source}: {format_bytes(self.bytes)}"
        images = f"{self.images:,} images of {self.pixels}"
        return f"{self.source}: {images}, {format_bytes(self.bytes)}"


def folder() -> Path:
    """Return the folder of the stores."""
    return cache_dir() / "images"


def limit() -> int:
    """Return how many bytes the stores may take: VGX_CACHE_MAX, or a fifth of the disk."""
    text = os.environ.get("VGX_CACHE_MAX")
    if text is None:
        return shutil.disk_usage(_existing()).total // 5
    return parse_bytes(text, "VGX_CACHE_MAX")


def parse_bytes(text: str, name: str) -> int:
    """Return the number of bytes that a text like 500MB says. Raises `RecipeError` with `name`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise RecipeError(f"{name}: {text!r} is no size; write one like 50GB or 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def require_room(count: int, bytes_per_image: int) -> None:
    """Raise `StorageError` when a store of `count` images is larger than the cache or its disk."""
    disk, needed, allowed = shutil.disk_usage(_existing()), count * bytes_per_image, limit()
    store = f"{folder()}: a store of {count:,} images takes up to {format_bytes(needed)}"
    fewer = "take fewer or smaller images"
    # Of a file system without a size, such as /proc, a builder sees what it takes.
    if needed > allowed and disk.total:
        bound = f"VGX_CACHE_MAX allows {format_bytes(allowed)}"
        if "VGX_CACHE_MAX" not in os.environ:
            bound = f"without VGX_CACHE_MAX, at most {format_bytes(allowed)}, a fifth of the disk"
        raise StorageError(f"{store}; {bound}; {fewer}, or set VGX_CACHE_MAX to allow more")
    if needed > disk.free and disk.total:
        others = "vgx cache --clear makes room, and VGX_CACHE names another disk"
        raise StorageError(f"{store}; the disk has {format_bytes(disk.free)}; {fewer}; {others}")


def _existing() -> Path:
    return existing(folder())


def format_bytes(count: int) -> str:
    """Return a number of bytes as MB or GB."""
    return f"{count / 10**9:,.2f} GB" if count >= 10**9 else f"{count / 10**6:,.1f} MB"


def obtain(
    store: Path,
    read: Callable[[Path], Opened],
    build: Callable[[Path, BinaryIO], None],
    waiting: Callable[[], None],
) -> tuple[Opened, bool]:
    """Return what `read` gives for a store, and whether this call has built the store.

    Of several processes that want the same store one builds it: `build` is called with a folder and
    the open file of images in it. The others wait until it is ready or its builder has died;
    `waiting` is called once. A store for which `read` raises `DamagedError` is built again, with a
    `Notice`; who has it open keeps the files that it has. Nobody removes a store while its file, or
    a map of it, is open. Raises `OSError`, and `StorageError` for what cannot be built again.
    """
    built = waited = False
    place = store.with_name(f".{store.name}")
    while True:
        with _held(store) as folder:
            try:
                if folder is not None:
                    return read(store), built
            except DamagedError as error:
                if not _is(store, folder):
                    continue  # it was removed or built again meanwhile
                if built:
                    faulty = "the disk or the memory may be faulty"
                    message = f"{store}: damaged when it was just built ({error}); {faulty}"
                    raise StorageError(message) from error
                warn_damaged(store, error, "its images are decoded again")
            with _removing(store, folder):
                file = _begin(store, place, folder)
        if file is None:
            if not waited and place.exists():
                waiting()
                waited = True
            with suppress(FileNotFoundError), open_regular(place / IMAGES) as other:
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


def look_up(store: Path, read: Callable[[Path], Opened]) -> Opened | None:
    """Return what `read` gives for a store; None when there is none.

    A store for which `read` raises `DamagedError` is taken for none, with a `Notice`. Raises
    `OSError`.
    """
    with _held(store) as folder:
        try:
            return None if folder is None else read(store)
        except DamagedError as error:
            if _is(store, folder):
                warn_damaged(store, error, "it is not used")
            return None


def warn_damaged(store: Path, error: DamagedError, what: str) -> None:
    """Give a `Notice` about a damaged store and what is done about it."""
    warnings.warn(f"{store}: damaged: {error}; {what}", Notice, stacklevel=3)


def open_images(store: Path) -> BinaryIO:
    """Open a store's images, together with other readers. Raises `DamagedError`, `OSError`."""
    try:
        images = open_regular(store / IMAGES)
    except StorageError as error:
        raise DamagedError(f"{IMAGES} is not a regular file") from error
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        raise DamagedError(f"{IMAGES}: {error.strerror}") from error
    fcntl.flock(images, fcntl.LOCK_SH)
    with suppress(OSError):  # in a cache of another user
        os.utime(store / ABOUT, follow_symlinks=False)
    return images


@contextmanager
def _held(store: Path) -> Iterator[int | None]:
    """Give a descriptor of a store's folder, or None when there is no such folder.

    As long as it is open, the system takes no other folder for this one.
    """
    try:
        folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def _is(store: Path, folder: int | None) -> bool:
    """Return whether a path names the folder of an open descriptor."""
    try:
        return folder is not None and os.path.samestat(store.stat(), os.fstat(folder))
    except FileNotFoundError:
        return False


@contextmanager
def _removing(store: Path, damaged: int | None) -> Iterator[None]:
    """Raise `StorageError` when the block may not remove a damaged store."""
    try:
        yield
    except OSError as error:
        if not _is(store, damaged):
            raise
        why = f"it cannot be made again: {error.strerror or error}"
        raise StorageError(f"{store}: {why}; VGX_CACHE names another cache") from error


def _begin(store: Path, place: Path, damaged: int | None) -> BinaryIO | None:
    """Make the folder to build a store in; None when another builds there, or the store exists.

    A store that is the `damaged` one is removed first.
    """
    root = store.parent
    if not root.parent.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        write_file(root.with_name("CACHEDIR.TAG"), TAG, sync=False)
    root.mkdir(exist_ok=True)
    # Nobody may see a folder that is not yet locked. A file, since NFS locks no directory.
    with root.with_name("images.lock").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for left in root.glob(".*"):
            # Blocked: another process builds there. Other errors: it is gone, or another user's.
            with suppress(OSError):
                if _HIDDEN.fullmatch(left.name):
                    _remove_unheld(left)
        if store.exists():
            if not _is(store, damaged):
                return None
            if others := sorted({file.name for file in store.iterdir()} - FILES):
                message = f"damaged, and {others[0]!r} in it is no file of a store"
                raise StorageError(f"{store}: {message}; move it away, or delete the folder")
            _discard(store)
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
    with open(place / IMAGES, "ab", opener=lambda path, _: os.open(path, flags, 0o666)) as images:
        fcntl.flock(images, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _discard(place)


def _discard(place: Path) -> None:
    """Remove a folder that this process holds; under its name it is never seen half removed."""
    name = place.name.strip(".")[:32]
    gone = place.rename(place.with_name(f".{name}.{uuid.uuid4().hex[:8]}"))
    if gone.is_symlink():
        gone.unlink()  # and what it leads to stays
    shutil.rmtree(gone, ignore_errors=True)
    forget(place.with_name(name))


def stores() -> list[Cached]:
    """Return the stores, the longest unused first; other files and folders are passed over."""
    cached = []
    for path in folder().glob("*"):
        with suppress(OSError):  # it is no folder, or was just removed
            names = {file.name for file in path.iterdir()}
            if not _NAME.fullmatch(path.name) or names - FILES or not {IMAGES, ABOUT} <= names:
                continue
            size, used = _size(path), (path / ABOUT).stat().st_mtime
            try:
                about = read_about(path)
            except DamagedError:
                source, count, shape = "damaged, or of an earlier vgx", 0, (0, 0, 0)
            else:
                source, count = about.source, about.count
                shape = about.height, about.width, about.channels
            cached.append(Cached(path, source, count, shape, size, used))
    return sorted(cached, key=lambda store: store.used)


def others() -> list[Cached]:
    """Return what else the cache can lose: files of the hub's library, features, hashes, and more.

    Folders of models, weights and engines that have files of somebody else are passed over.
    """
    data, features = cache_dir() / "datasets", cache_dir() / "features"
    hashes = cache_dir() / "streams"
    # Of a data set that the library has prepared, and of one whose preparation was broken off.
    found = [file.parent for file in data.rglob("dataset_info.json")]
    found = [path for path in found if path.suffix != INCOMPLETE] + [*data.rglob(f"*{INCOMPLETE}")]
    cached = []
    for path in (*found, *features.glob("*.safetensors"), *hashes.glob("[0-9a-f]*")):
        with suppress(OSError):  # it was just removed
            files = [*path.iterdir()] if path.is_dir() else [path]
            name = "features of real images"
            if path.is_relative_to(hashes):
                name = "hashes of streamed images"
            if path.is_relative_to(data):
                name = f"files of the hub's library: {'/'.join(path.relative_to(data).parts[:2])}"
            cached.append(_cached(path, name, files))
    for pattern, own, name in _FETCHED:
        for path in cache_dir().glob(pattern):
            with suppress(OSError):
                files = [file for file in path.rglob("*") if file.is_symlink() or file.is_file()]
                names = [file.relative_to(path).as_posix() for file in files]
                strange = [each for each in names if not re.fullmatch(own, each)]
                if path.is_dir() and not path.is_symlink() and not strange:
                    shown = name.format(path.name.replace("--", "/", 1))
                    cached.append(_cached(path, shown, files))
    return cached


def _cached(path: Path, name: str, files: list[Path]) -> Cached:
    status = [file.lstat() for file in files]
    used = max((max(each.st_atime, each.st_mtime) for each in status), default=0.0)
    return Cached(path, name, 0, (0, 0, 0), sum(each.st_size for each in status), used)


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.iterdir())


def content() -> list[Cached]:
    """Return all that `remove` can remove, the longest unused first."""
    return sorted([*stores(), *others()], key=lambda cached: cached.used)


def remove(max_bytes: int = 0) -> list[Cached]:
    """Remove what is longest unused, until the rest takes at most `max_bytes` bytes.

    Stores that are open stay, files of the hub's library as long as it works, and what may not be
    removed. Returns what was removed.
    """
    remaining = content()
    total, removed = sum(cached.bytes for cached in remaining), []
    for cached in remaining:
        if total <= max_bytes:
            break
        with suppress(OSError):
            _remove(cached.path)
            removed.append(cached)
            total -= cached.bytes
    return removed


def _remove(path: Path) -> None:
    """Remove what is cached at a path. Raises `OSError` when it is in use, or must stay."""
    if path.parent == folder():
        _remove_unheld(path)
    elif path.is_dir():
        # Whoever calls the library shares this lock until all that it needs is mapped.
        with cache_dir().joinpath("datasets.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{INCOMPLETE}"))
            shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink()
