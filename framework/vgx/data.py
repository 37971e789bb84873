"""Pictures: decoded, filtered and resized once into one memory-mapped array, then gathered.

Letters: N pictures, B in a minibatch, S pixels high and wide, C channels.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx import decoding, keys
from vgx.components import Dataset, ImageSpec, Labelled, Source
from vgx.errors import DataError, Dropped, Notice, StorageError
from vgx.rundir import cache_dir, write_file

# What is done to a picture after decoding; part of the store's address.
POLICY = "bilinear-2"
NAMED = 1000  # pictures that cannot be read and whose names are kept
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Store:
    """The decoded pictures and how they came to be."""

    images: NDArray[np.uint8]  # [N, S, S, C]
    labels: NDArray[np.int64] | None  # [N]  when the recipe's image.classes says that there are any
    fingerprint: str  # of the source
    content: str  # SHA-256 of the array
    dropped: dict[str, int]  # pictures left out, by reason
    bad: int = 0  # pictures that cannot be read
    named: tuple[str, ...] = ()  # the first of those: "name: why"

    def summary(self) -> str:
        """Return the counts as a person says them."""
        left_out = sum(self.dropped.values())
        text = f"{len(self.images):,} pictures"
        if left_out or self.bad:
            text += " kept"
        if left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            text += f", {left_out:,} dropped ({reasons})"
        if self.bad:
            text += f", {self.bad:,} unreadable ({self.worst()})"
        return text

    def worst(self) -> str:
        """Return the first few that cannot be read, and how many more there are."""
        more = f"; and {self.bad - 3:,} more" if self.bad > 3 else ""
        return "; ".join(self.named[:3]) + more


def open_source(dataset: Dataset, image: ImageSpec) -> tuple[Source, list[str]]:
    """Open a data set; also return the notices that its part gave."""
    notices: list[str] = []
    with noticing(notices):
        source = dataset.build(image)
    return source, notices


@contextmanager
def noticing(notices: list[str]) -> Iterator[None]:
    """Collect the notices that parts give while they are built."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        yield
    for warning in caught:
        if issubclass(warning.category, Notice):
            notices.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def peek(source: Source, image: ImageSpec, n: int, max_bad: float | None = None) -> Store:
    """Return the first `n` good pictures, or as many as there are, decoded without the cache.

    A bad one is passed over when `max_bad` says that there may be some, else it is a `DataError`.
    """
    good: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with decoding.guarded():
        for index in range(len(source)):
            picture = decoding.decode(source, index, image)
            if isinstance(picture, np.ndarray):
                good.append(picture)
                labels += [label_of(source, index, image)] if image.classes else []
            elif isinstance(picture, DataError) and max_bad is None:
                raise _refused(picture)
            if len(good) == n:
                break
    if not good:
        raise DataError(f"none of {len(source):,} pictures is usable")
    return Store(np.stack(good), np.array(labels) if labels else None, "", "", {})


def open_store(
    source: Source,
    image: ImageSpec,
    advance: Advance = lambda _: None,
    max_bad: float | None = None,
) -> Store:
    """Return the store of a source at this size, building it if the cache has none.

    `advance` is told how many pictures were done. `max_bad` is the largest share of pictures that
    may be unreadable; without it the first one is a `DataError`.
    """
    address = f"{source.fingerprint}|{image.size}|{image.channels}|{POLICY}"
    if image.classes:
        address += f"|{image.classes} classes"
    folder = cache_dir() / "images" / hashlib.sha256(address.encode()).hexdigest()[:32]
    if not (folder / "store.json").is_file():
        try:
            _build(source, image, folder, advance, max_bad)
        except OSError as error:
            needed = len(source) * image.pixel_values / 2**20
            message = f"{error.strerror or error} (it takes up to {needed:,.0f} MiB; VGX_CACHE"
            raise StorageError(f"{folder}: {message} says where)") from error
    try:
        about = json.loads((folder / "store.json").read_text())
        shape = (about["count"], image.size, image.size, image.channels)
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
        labels = np.fromfile(folder / "labels.i64", np.int64) if image.classes else None
    except (OSError, ValueError) as error:
        message = f"{folder}: damaged; delete it, and it is made again ({error})"
        raise StorageError(message) from error
    counts = about["dropped"], about["bad"], tuple(about["named"])
    store = Store(images, labels, source.fingerprint, about["sha256"], *counts)
    # Also when the store is an old one, made for a recipe that allows more.
    if store.bad and max_bad is None:
        raise _refused(store.named[0])
    if store.bad > (max_bad or 0) * len(source):
        message = f"{store.bad:,} of {len(source):,} pictures are unreadable ({store.worst()})"
        raise DataError(f"{message}; dataset.max_bad allows a share of {max_bad:g}")
    return store


def _refused(bad: DataError | str) -> DataError:
    return DataError(f"{bad}; dataset.on_bad=skip leaves such pictures out")


def label_of(source: Source, index: int, image: ImageSpec) -> int:
    """Return the label of a picture. Raises `DataError` when there is none, or no such class."""
    if not isinstance(source, Labelled):
        raise DataError(
            f"image.classes: {image.classes}: the data set gives its pictures no labels"
        )
    label = source.label(index)
    if not 0 <= label < image.classes:
        most = image.classes - 1
        raise DataError(f"picture {index} has the label {label}; image.classes allows 0 to {most}")
    return label


def _build(
    source: Source, image: ImageSpec, folder: Path, advance: Advance, max_bad: float | None
) -> None:
    digest, dropped, count = hashlib.sha256(), Counter[str](), 0
    bad, labels = list[str](), list[int]()
    with _scratch(folder) as temporary:
        with (temporary / "images.u8").open("wb") as file, decoding.guarded():
            for index, picture in enumerate(_decode_all(source, image)):
                advance(1)
                if isinstance(picture, Dropped):
                    dropped[str(picture)] += 1
                elif isinstance(picture, DataError):
                    if max_bad is None:
                        raise _refused(picture)
                    bad.append(str(picture))
                else:
                    data = picture.tobytes()
                    file.write(data)
                    digest.update(data)
                    count += 1
                    labels += [label_of(source, index, image)] if image.classes else []
            file.flush()
            os.fsync(file.fileno())
        if not count:
            why = f"dropped: {dict(dropped)}, unreadable: {len(bad):,} ({'; '.join(bad[:3])})"
            raise DataError(f"none of {len(source):,} pictures is usable: {why}")
        if image.classes:
            data = np.array(labels, np.int64).tobytes()
            write_file(temporary / "labels.i64", data)
            digest.update(data)
        about = {
            "count": count,
            "dropped": dict(sorted(dropped.items())),
            "bad": len(bad),
            "named": bad[:NAMED],
            "sha256": digest.hexdigest(),
        }
        write_file(temporary / "store.json", json.dumps(about, indent=1))
        try:
            temporary.rename(folder)
            (folder / "lock").unlink(missing_ok=True)
        except OSError:  # another process was faster with the same pictures
            if not (folder / "store.json").is_file():
                raise


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Make a place to build a store in, and remove those whose builders died.

    A builder holds a lock on its own place, which ends with its process however that ends.
    """
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    # Nobody looks at a place that is not yet locked. Files, since NFS locks no directory.
    with root.with_name("images.lock").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for left in root.glob(".*"):
            _remove_if_left(left)
        temporary.mkdir()
        held = (temporary / "lock").open("a")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        held.close()


def _remove_if_left(place: Path) -> None:
    # Blocked: somebody builds there. Other errors: it is gone by now, or another person's.
    with suppress(OSError), (place / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(place)


def _decode_all(
    source: Source, image: ImageSpec
) -> Iterator[NDArray[np.uint8] | Dropped | DataError]:
    # Pillow decodes and resizes without holding the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        at_once = max(1, min(256, 2**28 // image.pixel_values))  # a quarter of a gigabyte
        for start in range(0, len(source), at_once):
            indices = range(start, min(start + at_once, len(source)))
            yield from pool.map(lambda index: decoding.decode(source, index, image), indices)


def minibatches(pictures: int, batch: int) -> int:
    """Return how many minibatches an epoch has; the pictures of an unfinished one sit it out."""
    if pictures < batch:
        counts = f"{pictures:,} pictures don't fill one minibatch of {batch:,}"
        raise DataError(f"{counts}; lower train.batch to {pictures:,}")
    return pictures // batch


class Batches:
    """Minibatches by number: the order is a keyed permutation, a resume needs only the number."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        batch: int,
        seed: int,
        device: torch.device,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Raise `DataError` when the pictures don't fill one minibatch."""
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self._labels = labels
        self.per_epoch = minibatches(len(images), batch)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def rows(self, number: int) -> NDArray[np.int64]:
        """[B]  Which pictures are in minibatch `number`, counted from the start of the training."""
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            chance = keys.generator(self.seed, "order", epoch)
            self._order = (epoch, torch.randperm(len(self.images), generator=chance).numpy())
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def __getitem__(self, number: int) -> Tensor:
        """[B, C, S, S]  Minibatch `number`, in [0, 1], on the device."""
        return as_images(self.images[self.rows(number)], self.device)

    def labels(self, number: int) -> Tensor | None:
        """[B]  The labels of minibatch `number`, on the device."""
        if self._labels is None:
            return None
        return torch.from_numpy(self._labels[self.rows(number)]).to(self.device)


def as_batch(store: Store, n: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """[n, C, S, S] and [n]  The store's first pictures and, where there are any, their labels."""
    labels = None if store.labels is None else torch.from_numpy(store.labels[:n]).to(device)
    return as_images(store.images[:n], device), labels


def as_images(pictures: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """[B, C, S, S]  Decoded pictures [B, S, S, C] as images in [0, 1], in channels-last memory."""
    batch = torch.from_numpy(np.array(pictures)).to(device, non_blocking=True)
    return batch.permute(0, 3, 1, 2).to(torch.float32) / 255
