"""Opening the images of a source: from the store, or streamed when it is a grouped one."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from vgx.console import Console
from vgx.data.classes import names_of
from vgx.data.decode import guard
from vgx.data.pieces import hash_of
from vgx.data.split import held_out
from vgx.data.store import Store, labelled, name_of, open_store, watched_on
from vgx.data.stream import StreamedImages, StreamedLabels
from vgx.data.sums import Watch, unwatched
from vgx.errors import DataError, Dropped, Notice, StorageError
from vgx.files import cache_dir, read_file, replacing
from vgx.images import ahead, threads
from vgx.parts.kinds import Dataset, Encoded, Grouped, Source
from vgx.parts.values import ImageSpec

SUM = 32  # bytes of a SHA-256


def store_of(
    source: Source,
    dataset: Dataset,
    image: ImageSpec,
    console: Console,
    holdout: float = 0.0,
    *,
    verify: bool = False,
) -> Store:
    """Return the images of a data set's source; show on the console how that goes on.

    A grouped source is streamed: nothing of it is decoded yet. `holdout` is the share of its images
    that no training sees; for these all bytes are read once.
    """
    if not isinstance(source, Grouped):
        return open_store(
            source,
            image,
            watched_on(console),
            dataset.tolerated,
            name_of(dataset),
            console.print,
            verify=verify,
        )
    store = open_stream(source, image, console, dataset.tolerated, holdout)
    groups = f"{len(source.groups):,} row groups"
    console.print(f"Streaming {name_of(dataset)}: {len(source):,} images in {groups}")
    return store


def open_stream(
    source: Grouped,
    image: ImageSpec,
    console: Console,
    max_bad: float | None = None,
    holdout: float = 0.0,
) -> Store:
    """Return a store of streamed images. Its counts of unusable images are in `images.unusable`.

    Its hashes are those of the encoded bytes, and zeros when no image is held out.
    """
    guard()  # threads decode at any time
    hashes = np.zeros(len(source), np.uint64)  # [N]
    held = None
    if holdout:
        hashes = encoded_hashes(source, watched_on(console))
        held = held_out(hashes, holdout)
    images = StreamedImages(source, image, held, max_bad, console.print)
    labels = None
    if image.classes:
        labels = StreamedLabels(images, _labels_of(source, image))
    content = hashlib.sha256(f"stream|{source.fingerprint}".encode()).hexdigest()
    fingerprint, revision = source.fingerprint, source.revision
    names = names_of(source, image)
    return Store(
        images, hashes, labels, image, fingerprint, content, {}, names=names, revision=revision
    )


def _labels_of(source: Source, image: ImageSpec) -> NDArray[np.int64]:
    """[N]  Return all labels. That of an image that will be left out may be none."""
    label = labelled(source, image).label
    return np.array([label(row) for row in range(len(source))], np.int64)


def encoded_hashes(source: Grouped, watch: Watch = unwatched) -> NDArray[np.uint64]:
    """[N]  Return the hash of each image's bytes, from the cache, or by reading all of them once.

    Equal bytes have equal hashes. Raises `DataError` or `HubError` for what cannot be read.
    """
    address = hashlib.sha256(f"hashes-1|{source.fingerprint}".encode()).hexdigest()[:32]
    file, size = cache_dir() / "streams" / address, 8 * len(source)
    with suppress(FileNotFoundError):
        try:
            data = read_file(file, size + SUM)
            if _sum(address, data[:size]) == data[size:]:
                return np.frombuffer(data[:size], np.uint64).copy()
            reason = "it is not as it was written"
        except StorageError as error:
            reason = str(error)
        warnings.warn(f"{file}: {reason}; all images are read again", Notice, stacklevel=2)
    hashes = list[int]()
    with watch("Reading all images once", len(source)) as advance:
        groups = range(len(source.groups))
        for part in ahead(lambda number: _hashes(source.group(number)), groups, threads()):
            hashes += part
            advance(len(part))
    body = np.array(hashes, np.uint64).tobytes()
    with suppress(StorageError), replacing(file) as new:  # a cache that cannot be written has none
        new.write(body + _sum(address, body))
    return np.frombuffer(body, np.uint64).copy()


def _hashes(group: Encoded) -> list[int]:
    hashes = []
    for index in range(len(group)):
        try:
            hashes.append(hash_of(group.encoded(index)))
        except (Dropped, DataError):  # no image in this row
            hashes.append(hash_of(b""))
    return hashes


def _sum(address: str, body: bytes) -> bytes:
    return hashlib.sha256(address.encode() + body).digest()
