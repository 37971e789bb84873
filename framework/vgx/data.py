"""Pictures: decoded, filtered and resized once into one memory-mapped array, then gathered.

Letters: N pictures, B in a minibatch, S pixels high and wide, C channels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vgx import keys
from vgx.components import Dataset, ImageSpec, Labelled, Source
from vgx.errors import DataError, Dropped, Notice, StorageError
from vgx.rundir import cache_dir

# What is done to a picture after decoding; part of the store's address.
POLICY = "bilinear-1"
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Store:
    """The decoded pictures and how they came to be."""

    images: NDArray[np.uint8]  # [N, S, S, C]
    labels: NDArray[np.int64] | None  # [N]  when the recipe's image.classes says that there are any
    fingerprint: str  # of the source
    content: str  # SHA-256 of the array
    dropped: dict[str, int]  # pictures left out, by reason

    def summary(self) -> str:
        """Return the counts as a person says them."""
        left_out = sum(self.dropped.values())
        text = f"{len(self.images):,} pictures"
        if left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            text += f" kept, {left_out:,} dropped ({reasons})"
        return text


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


def peek(source: Source, image: ImageSpec, n: int) -> Store:
    """Return the first `n` good pictures, decoded without the cache."""
    good: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for index in range(len(source)):
        picture = _decode(source, index, image)
        if not isinstance(picture, str):
            good.append(picture)
            labels += [label_of(source, index, image)] if image.classes else []
        if len(good) == n:
            return Store(np.stack(good), np.array(labels) if labels else None, "", "", {})
    raise DataError(f"only {len(good)} usable pictures of {len(source)}; at least {n} are needed")


def open_store(source: Source, image: ImageSpec, advance: Advance = lambda _: None) -> Store:
    """Return the store of a source at this size, building it if the cache has none.

    `advance` is told how many pictures were done. Raises `DataError` for a bad picture.
    """
    address = f"{source.fingerprint}|{image.size}|{image.channels}|{POLICY}"
    if image.classes:
        address += f"|{image.classes} classes"
    folder = cache_dir() / "images" / hashlib.sha256(address.encode()).hexdigest()[:32]
    if not (folder / "store.json").is_file():
        try:
            _build(source, image, folder, advance)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror or error}") from error
    try:
        about = json.loads((folder / "store.json").read_text())
        shape = (about["count"], image.size, image.size, image.channels)
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
        labels = np.fromfile(folder / "labels.i64", np.int64) if image.classes else None
    except (OSError, ValueError) as error:
        message = f"{folder}: damaged; delete it, and it is made again ({error})"
        raise StorageError(message) from error
    return Store(images, labels, source.fingerprint, about["sha256"], about["dropped"])


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


def _build(source: Source, image: ImageSpec, folder: Path, advance: Advance) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        digest, dropped, count = hashlib.sha256(), Counter[str](), 0
        labels: list[int] = []
        with (temporary / "images.u8").open("wb") as file:
            for index, picture in enumerate(_decode_all(source, image)):
                advance(1)
                if isinstance(picture, str):
                    dropped[picture] += 1
                    continue
                data = picture.tobytes()
                file.write(data)
                digest.update(data)
                count += 1
                if image.classes:
                    labels.append(label_of(source, index, image))
        if not count:
            raise DataError(f"none of {len(source):,} pictures is usable: {dict(dropped)}")
        if image.classes:
            data = np.array(labels, np.int64).tobytes()
            (temporary / "labels.i64").write_bytes(data)
            digest.update(data)
        about = {
            "count": count,
            "dropped": dict(sorted(dropped.items())),
            "sha256": digest.hexdigest(),
        }
        (temporary / "store.json").write_text(json.dumps(about, indent=1))
        try:
            temporary.rename(folder)
        except OSError:  # another process was faster with the same pictures
            if not (folder / "store.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode_all(source: Source, image: ImageSpec) -> Iterator[NDArray[np.uint8] | str]:
    # Pillow decodes and resizes without holding the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source), 256):
            indices = range(start, min(start + 256, len(source)))
            yield from pool.map(lambda index: _decode(source, index, image), indices)


def _decode(source: Source, index: int, image: ImageSpec) -> NDArray[np.uint8] | str:
    """[S, S, C]  One picture, or the reason why it is left out."""
    try:
        with source[index] as picture:
            whole = picture.convert("RGB" if image.channels == 3 else "L")
            small = whole.resize((image.size, image.size), Image.Resampling.BILINEAR)
    except Dropped as reason:
        return str(reason)
    # Decoders raise many things for bad files; each means the same to the person.
    except Exception as error:
        raise DataError(
            f"picture {index} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return np.asarray(small).reshape(image.size, image.size, image.channels)


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
        if len(images) < batch:
            message = (
                f"{len(images):,} pictures don't fill one minibatch; lower train.batch to that"
            )
            raise DataError(message)
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self._labels = labels
        self.per_epoch = len(images) // batch
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
