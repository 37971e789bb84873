"""Pictures: decoded, filtered and resized once into one memory-mapped array, then gathered.

Letters: N pictures, B in a minibatch, S pixels high and wide, C channels.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx import rng
from vgx.data import cache
from vgx.data import decode as decoding
from vgx.data.batches import Batch
from vgx.errors import DataError, Dropped, StorageError, noticing
from vgx.files import write_file
from vgx.parts.kinds import Dataset, Labelled, Source
from vgx.parts.values import ImageSpec

# What is done to a picture after decoding; part of the store's address.
POLICY = "bilinear-3"
READ = 4096  # pictures that are read at once where many are
NAMED = 1000  # pictures that cannot be read and whose names are kept
AT_ONCE = 32  # pictures that a thread decodes in one go
IN_FLIGHT = 2**28  # bytes of decoded pictures that wait to be written, about
SKIPPING = "dataset.on_bad=skip leaves such pictures out"
Advance = Callable[[int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Store:
    """The decoded pictures and how they came to be."""

    images: NDArray[np.uint8]  # [N, S, S, C]
    hashes: NDArray[np.uint64]  # [N]  of each picture's bytes: equal pictures have equal ones
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


def name_of(dataset: Dataset) -> str:
    """Return a data set as a person says it: its type, and what the recipe sets of it."""
    left_out = {"on_bad", "max_bad"}  # which change no picture
    fields = dataset.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    words = [f"{key}={value}" for key, value in fields.items() if key != "type"]
    return " ".join([dataset.type, *words])


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
    hashes = np.array([hash_of(picture.tobytes()) for picture in good], np.uint64)
    return Store(np.stack(good), hashes, np.array(labels) if labels else None, "", "", {})


def open_store(
    source: Source,
    image: ImageSpec,
    advance: Advance = lambda _: None,
    max_bad: float | None = None,
    name: str = "",
    say: Say = lambda _: None,
    advice: str = SKIPPING,
) -> Store:
    """Return the store of a source at this size, building it if the cache has none.

    `advance` is told how many pictures were done, `say` what else a person should know. `max_bad`
    is the largest share of pictures that may be unreadable; without it the first one is a
    `DataError` with `advice`. `name` is what the cache's list calls the source.
    """
    address = f"{source.fingerprint}|{image.size}|{image.channels}|{POLICY}"
    if image.classes:
        address += f"|{image.classes} classes"
    folder = cache.folder() / hashlib.sha256(address.encode()).hexdigest()[:32]
    most = cache.limit()

    def build(place: Path, file: BinaryIO) -> None:
        _build(source, image, place, file, advance, max_bad, name, advice)

    def waiting() -> None:
        say("Another run decodes these pictures; waiting")

    try:
        opened, built = cache.obtain(folder, build, waiting)
    except OSError as error:
        needed = len(source) * image.pixel_values / 2**20
        message = f"{error.strerror or error} (it takes up to {needed:,.0f} MiB; VGX_CACHE"
        raise StorageError(f"{folder}: {message} says where)") from error
    with opened:
        try:
            about = json.loads((folder / cache.ABOUT).read_text())
            shape = (about["count"], image.size, image.size, image.channels)
            # The map keeps the file's lock: a store that is mapped is not removed.
            images = np.memmap(opened, np.uint8, "r", shape=shape)
            hashes = _column(folder / cache.HASHES, np.uint64, len(images))
            labels = None
            if image.classes:
                labels = _column(folder / cache.LABELS, np.int64, len(images))
        except (OSError, ValueError) as error:
            message = f"{folder}: damaged; delete it, and it is made again ({error})"
            raise StorageError(message) from error
    if built:
        for gone in cache.remove(most):
            say(f"Removed from the cache, which is full: {gone.line}")
    counts = about["dropped"], about["bad"], tuple(about["named"])
    store = Store(images, hashes, labels, source.fingerprint, about["sha256"], *counts)
    _judge(store, len(source), max_bad, advice)
    return store


def _judge(store: Store, asked: int, max_bad: float | None, advice: str) -> None:
    """Raise `DataError` for too many bad pictures: a store may be of who allows more of them."""
    if store.bad and max_bad is None:
        raise _refused(store.named[0], advice)
    if store.bad > (max_bad or 0) * asked:
        message = f"{store.bad:,} of {asked:,} pictures are unreadable ({store.worst()})"
        raise DataError(f"{message}; dataset.max_bad allows a share of {max_bad:g}")


def _column(file: Path, kind: type[Any], count: int) -> NDArray[Any]:
    """[N]  Return one number for each picture. Raises `ValueError` when there are not as many."""
    column = np.fromfile(file, kind)
    if len(column) != count:
        raise ValueError(f"{file.name} has {len(column):,} numbers for {count:,} pictures")
    return column


def _refused(bad: DataError | str, advice: str = SKIPPING) -> DataError:
    return DataError(f"{bad}; {advice}")


def hash_of(data: bytes) -> int:
    """Return 64 bits that stand for a picture's bytes: the first of its BLAKE2b hash."""
    return int.from_bytes(hashlib.blake2b(data).digest()[:8], "little")


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
    source: Source,
    image: ImageSpec,
    place: Path,
    file: BinaryIO,
    advance: Advance,
    max_bad: float | None,
    name: str,
    advice: str,
) -> None:
    """Write a store into `place`, its pictures into the open `file` there."""
    digest, dropped = hashlib.sha256(), Counter[str]()
    bad, labels, hashes = list[str](), list[int](), list[int]()
    with decoding.guarded():
        for piece in _decode_all(source, image):
            advance(piece.asked)
            for fault in piece.faults:
                if isinstance(fault, Dropped):
                    dropped[str(fault)] += 1
                elif max_bad is None:
                    raise _refused(fault, advice)
                else:
                    bad.append(str(fault))
            file.write(piece.data)
            digest.update(piece.data)
            hashes += piece.hashes
            labels += [label_of(source, row, image) for row in piece.rows if image.classes]
    file.flush()
    os.fsync(file.fileno())
    if not hashes:
        why = f"dropped: {dict(dropped)}, unreadable: {len(bad):,} ({'; '.join(bad[:3])})"
        raise DataError(f"none of {len(source):,} pictures is usable: {why}")
    write_file(place / cache.HASHES, np.array(hashes, np.uint64).tobytes())
    if image.classes:
        data = np.array(labels, np.int64).tobytes()
        write_file(place / cache.LABELS, data)
        digest.update(data)
    about = {
        "source": decoding.printable(name or source.fingerprint),
        "size": image.size,
        "channels": image.channels,
        "count": len(hashes),
        "dropped": dict(sorted(dropped.items())),
        "bad": len(bad),
        "named": bad[:NAMED],
        "sha256": digest.hexdigest(),
    }
    write_file(place / cache.ABOUT, json.dumps(about, indent=1))


@dataclass(frozen=True)
class _Piece:
    """Neighbouring pictures of a source, decoded."""

    asked: int
    data: bytes  # of the usable ones
    rows: list[int]  # which those are
    hashes: list[int]
    faults: list[Dropped | DataError]  # of the others


def _decode_all(source: Source, image: ImageSpec) -> Iterator[_Piece]:
    """Decode in threads, a piece at a time: Pillow does so without the interpreter's lock."""
    threads = os.cpu_count() or 1
    ahead = min(2 * threads, max(1, IN_FLIGHT // image.pixel_values))  # pieces in flight
    at_once = max(1, min(AT_ONCE, IN_FLIGHT // image.pixel_values // ahead))
    pieces = deque[Future[_Piece]]()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), at_once):
            if len(pieces) == ahead:
                yield pieces.popleft().result()
            rows = range(start, min(start + at_once, len(source)))
            pieces.append(pool.submit(_decode, source, image, rows))
        while pieces:
            yield pieces.popleft().result()


def _decode(source: Source, image: ImageSpec, rows: range) -> _Piece:
    faults, kept, good = list[Dropped | DataError](), list[int](), list[bytes]()
    for row in rows:
        picture = decoding.decode(source, row, image)
        if isinstance(picture, np.ndarray):
            kept.append(row)
            good.append(picture.tobytes())
        else:
            faults.append(picture)
    return _Piece(len(rows), b"".join(good), kept, [hash_of(data) for data in good], faults)


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
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Take all pictures, or those in `rows` [M]; labels are of all.

        Raises `DataError` when they don't fill one minibatch.
        """
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self._labels = labels
        self._chosen = np.arange(len(images)) if rows is None else rows
        self.per_epoch = minibatches(len(self._chosen), batch)
        self.resident: Tensor | None = None  # [N, S, S, C]  the pictures, if they are on the device
        # Of one epoch at a time, and of one seed: a rollback takes another.
        self._order: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, np.int64))

    def rows(self, number: int) -> NDArray[np.int64]:
        """[B]  Which pictures are in minibatch `number`, counted from the start of the training."""
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != (self.seed, epoch):
            chance = rng.generator(self.seed, "order", epoch)
            order = torch.randperm(len(self._chosen), generator=chance).numpy()
            self._order = ((self.seed, epoch), self._chosen[order])
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def __getitem__(self, number: int) -> Batch:
        """Return minibatch `number`, on the device."""
        rows = self.rows(number)
        if self.resident is not None:
            images = as_floats(self.resident[torch.from_numpy(rows).to(self.device)])
        else:
            images = as_images(self.images[rows], self.device)
        return Batch(images, self.labels(number))

    def reseeded(self, seed: int) -> Batches:
        """Return the same pictures in the order of another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def reside(self) -> None:
        """Put all pictures on the device: a minibatch is then a gather there."""
        self.resident = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(self.images), READ):
            part = self.images[start : start + READ]
            self.resident[start : start + READ] = torch.from_numpy(np.array(part)).to(self.device)

    def labels(self, number: int) -> Tensor | None:
        """[B]  The labels of minibatch `number`, on the device."""
        if self._labels is None:
            return None
        return torch.from_numpy(self._labels[self.rows(number)]).to(self.device)


def as_batch(store: Store, n: int, device: torch.device) -> Batch:
    """Return the store's first n pictures."""
    labels = None if store.labels is None else torch.from_numpy(store.labels[:n]).to(device)
    return Batch(as_images(store.images[:n], device), labels)


def as_images(pictures: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """[B, C, S, S]  Decoded pictures [B, S, S, C] as images in [0, 1], in channels-last memory."""
    # What was gathered is a copy already; PyTorch takes no view of a store, which is read-only.
    own = np.require(pictures, requirements=["C", "W"])
    batch = torch.from_numpy(own)  # [B, S, S, C]
    if torch.device(device).type == "cuda":
        batch = batch.pin_memory()  # else the copy would wait for the device
    return as_floats(batch.to(device, non_blocking=True))


def as_floats(batch: Tensor) -> Tensor:
    """[B, C, S, S]  Bytes [B, S, S, C] as images in [0, 1], in channels-last memory."""
    return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)
