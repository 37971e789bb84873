"""What a store must be: `store.json` with the sums of all files, and the last check of the images.

The images are hashed at the first opening on a machine since it was started. What the file's status
was then is noted in a small file, the stamp; as long as it is the same, they are not hashed again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vgx.errors import StorageError
from vgx.files import read_file, replacing

IMAGES, HASHES, LABELS, ABOUT = "images.u8", "hashes.u64", "labels.i64", "store.json"
FILES = {IMAGES, HASHES, LABELS, ABOUT}
SIZES = {"uint8": 1, "uint16": 2, "float32": 4}  # kinds of values, and bytes of each
NAMED = 1000  # unreadable images whose names are kept
MOST = 2**25  # bytes of `store.json` that are read
AT_ONCE = 2**22  # bytes that are hashed at once
SHOWN = 10**9  # bytes that take about a second to hash; more of them show progress
SETTLED = 1.0  # seconds after which another change of a file changes its ctime
BOOT = Path("/proc/sys/kernel/random/boot_id")
# What the system says about a file that is not there as it was written.
BROKEN = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}

# Shows a long task: takes its name and its number of images, gives the block a function to call
# with the number of images just done.
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class DamagedError(Exception):
    """A store is not as it was written; it can be made again."""


def unwatched(_: str, __: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    return nullcontext(lambda _: None)


@dataclass(frozen=True)
class About:
    """The content of `store.json`."""

    address: str  # the name of the store's folder
    source: str  # the data set and its fields
    height: int  # of each image, in pixels
    width: int
    channels: int
    kind: str  # of its values: uint8, uint16 or float32
    low: float  # the smallest value before resizing; 0 for bytes
    high: float  # the largest one; 255 for bytes
    count: int
    dropped: dict[str, int]  # images left out, by reason
    bad: int  # images that cannot be read
    named: list[str]  # the first of those
    look: dict[str, Any]  # what a look at the images has found
    sha256: str  # of images and labels
    sums: dict[str, str]  # SHA-256 of the other files
    classes: list[str]  # names of the labels; none without labels

    def text(self) -> str:
        """Return these fields as JSON, and last the sum of what stands before it."""
        fields = asdict(self)
        own = hashlib.sha256(json.dumps(fields, indent=1).encode()).hexdigest()
        return json.dumps({**fields, "own": own}, indent=1)

    def possible(self) -> bool:
        """Return whether each field is of its kind and within its bounds."""
        shape = self.height, self.width, self.channels, self.count
        numbers = (*shape, self.bad, *self.dropped.values())
        texts = (self.address, self.source, self.sha256, *self.named, *self.dropped, *self.classes)
        return (
            all(type(number) is int and 0 <= number < 2**53 for number in numbers)
            and min(shape) > 0
            and all(type(text) is str for text in (*texts, *self.sums.values()))
            and type(self.named) is type(self.classes) is list
            and self.kind in SIZES
            and all(type(end) is float and math.isfinite(end) for end in (self.low, self.high))
            and type(self.look) is dict
            and set(self.sums) in ({HASHES}, {HASHES, LABELS})
        )


def read_about(store: Path) -> About:
    """Return what `store.json` holds. Raises `DamagedError` for anything but what was written."""
    data = _contents(store / ABOUT, MOST)
    try:
        fields = json.loads(data)
        del fields["own"]
        about = About(**fields)
        whole = about.possible() and data == about.text().encode()
    # JSON of another shape: no mapping, other keys, other values; nested too deeply.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedError(f"{ABOUT} is not as it was written")
    if about.address != store.name:
        raise DamagedError(f"{ABOUT} is that of another store")
    return about


def read_column(store: Path, name: str, about: About) -> bytes:
    """Return the bytes of a file with one number of 8 bytes for each image.

    Raises `DamagedError` when they are not those that were written.
    """
    data = _contents(store / name, 8 * about.count)
    if hashlib.sha256(data).hexdigest() != about.sums.get(name) or len(data) != 8 * about.count:
        raise DamagedError(f"{name} is not as it was written")
    return data


def check_images(
    store: Path, file: BinaryIO, about: About, labels: bytes, watch: Watch, *, always: bool
) -> None:
    """Hash the images in the open `file`, unless it is the one of the last check, or `always`.

    Raises `DamagedError` when they, or the labels, are not those that were written.
    """
    row = about.height * about.width * about.channels * SIZES[about.kind]
    size = os.fstat(file.fileno()).st_size
    if size != about.count * row:
        raise DamagedError(f"{IMAGES} has {size:,} bytes, not {about.count * row:,}")
    stamp, state = _stamp(store), _state(file, about)
    if not always and state and _noted(stamp) == state:
        return
    # A change within the same tick of the clock as the one before would not change the ctime.
    settled = time.time() - os.fstat(file.fileno()).st_ctime > SETTLED
    rows = max(1, AT_ONCE // row)
    digest = hashlib.sha256()
    with (watch if size > SHOWN else unwatched)("Verifying", about.count) as advance:
        for start in range(0, about.count, rows):
            count = min(rows, about.count - start)
            digest.update(_piece(file, count * row))
            advance(count)
    digest.update(labels)
    if digest.hexdigest() != about.sha256:
        raise DamagedError(f"{IMAGES} is not as it was written")
    if settled and state and _state(file, about) == state:
        with suppress(OSError, StorageError):  # a cache that cannot be written is hashed each time
            stamp.parent.mkdir(exist_ok=True)
            with replacing(stamp, sync=False) as new:
                new.write(state.encode())


def forget(store: Path) -> None:
    """Remove the stamp of a store that is no more."""
    with suppress(OSError):
        _stamp(store).unlink()


def _contents(file: Path, most: int) -> bytes:
    try:
        return read_file(file, most)
    except StorageError as error:
        raise DamagedError(str(error).removeprefix(f"{file.parent}/")) from error
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        raise DamagedError(f"{file.name}: {error.strerror}") from error


def _piece(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        raise DamagedError(f"{IMAGES}: {error.strerror}") from error


def _stamp(store: Path) -> Path:
    return store.parent.with_name("verified") / store.name


def _noted(stamp: Path) -> str:
    with suppress(OSError, StorageError, ValueError):
        return read_file(stamp, 1000).decode()
    return ""


def _state(file: BinaryIO, about: About) -> str:
    """Return what a change of the file changes, on this machine since it was started.

    Nobody can set the ctime by hand. Empty where the system does not say which start it is.
    """
    with suppress(OSError, ValueError):
        boot, status = BOOT.read_text("utf-8").strip(), os.fstat(file.fileno())
        place = f"device {status.st_dev} inode {status.st_ino} size {status.st_size}"
        times = f"mtime {status.st_mtime_ns} ctime {status.st_ctime_ns}"
        return f"boot {boot} {place} {times} sha256 {about.sha256}\n" if boot else ""
    return ""
