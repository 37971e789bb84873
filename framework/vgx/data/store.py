"""The store: images decoded, filtered and resized once into one memory-mapped array.

Letters: N images, H x W pixels, C channels.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from vgx.console import Console
from vgx.data import cache, sums
from vgx.data import decode as decoding
from vgx.data.classes import Classes, counted, names_of
from vgx.data.look import Look, look
from vgx.data.pieces import Facts, decode_all
from vgx.data.pixels import KINDS, Scaled, as_given, limits, require_known_background
from vgx.data.stream import StreamedImages, evenly
from vgx.data.sums import Watch, unwatched
from vgx.data.unusable import Unusable, unreadable
from vgx.errors import DataError, Notice, StorageError, noticing
from vgx.files import require_writable, write_file
from vgx.parts.base import Component
from vgx.parts.kinds import Counted, Dataset, Grouped, Labelled, Sampler, Source
from vgx.parts.values import ImageSpec

# How an image is resized and kept; part of the store's address.
POLICY = "bilinear-4"


class Images(Protocol):
    """Images that are read when they are asked for; an array is one such."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, their height, their width and their channels: (N, H, W, C)."""
        ...

    @property
    def nbytes(self) -> int:
        """The size of all images in bytes, as they are given."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> NDArray[Any]:
        """[n, H, W, C]  Return some images: bytes from 0 to 255, or float32 in [0, 1]."""
        ...


class Labels(Protocol):
    """Labels that are looked up when they are asked for; an array is one such."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> NDArray[np.int64]:
        """[n]  Return the labels of some images."""
        ...


@dataclass(frozen=True)
class Store:
    """The decoded images and how they came to be."""

    images: Images  # [N, H, W, C]
    hashes: NDArray[np.uint64]  # [N]  of each image's values: equal images have equal hashes
    labels: Labels | None  # [N]  if the recipe's image.classes is set
    image: ImageSpec  # what was asked for, and the range of images of more than 8 bits
    fingerprint: str  # of the source
    content: str  # SHA-256 of images and labels, and of the range of values
    dropped: dict[str, int]  # images left out, by reason
    bad: int = 0  # images that cannot be read
    named: tuple[str, ...] = ()  # the first of those: "name: reason"
    kind: str = "uint8"  # of the values that are kept: uint8, uint16 or float32
    look: Look = field(default_factory=Look)
    names: tuple[str, ...] = ()  # of the labels, if they have any
    left_out: dict[str, int] = field(default_factory=dict)  # files beside the images, by reason
    revision: str = ""  # the commit of the data, if it is known

    def first(self, rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return at most `n` of some rows, chosen by their hashes: the order has no effect.

        Of streamed images they are those of a few groups.
        """
        if isinstance(self.images, StreamedImages):
            return self.images.first(rows, n)
        return rows[np.argsort(self.hashes[rows], kind="stable")][:n]

    def spread(self, rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return at most `n` of some rows, evenly chosen; of streamed images, in a few groups."""
        if isinstance(self.images, StreamedImages):
            return self.images.spread(rows, n)
        return rows[evenly(len(rows), n)]

    def classes(self, image: ImageSpec) -> Classes:
        """Return the name of each label and how many images have it; none without labels."""
        if self.labels is None:
            return []
        every = np.asarray(self.labels)
        return counted(every[every >= 0], image, self.names)

    def summary(self) -> str:
        """Return the counts as a line of text."""
        left_out = sum(self.dropped.values())
        text = f"{len(self.images):,} images"
        if left_out or self.bad:
            text += " kept"
        if left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            text += f", {left_out:,} dropped ({reasons})"
        if self.bad:
            text += f", {self.bad:,} unreadable ({self.examples()})"
        return text + beside(self.left_out)

    def examples(self) -> str:
        """Return the first few unreadable images, and how many more there are."""
        more = f"; and {self.bad - 3:,} more" if self.bad > 3 else ""
        return "; ".join(self.named[:3]) + more


def files_left_out(source: Source) -> dict[str, int]:
    """Return how many files a source leaves out, by reason; none if it does not count them."""
    return dict(source.left_out) if isinstance(source, Counted) else {}


def beside(left_out: Mapping[str, int]) -> str:
    """Return ", 12 left out (8 .heic, 3 .txt, 1 hidden file)", or an empty text."""
    if not left_out:
        return ""
    most = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {_plural(reason, count)}" for reason, count in most[:8]]
    shown += [f"{sum(count for _, count in most[8:]):,} others"] if most[8:] else []
    return f", {sum(left_out.values()):,} left out ({', '.join(shown)})"


def _plural(reason: str, count: int) -> str:
    """Return "hidden files" for "hidden file", and "runs of vgx"; an ending stays as it is."""
    noun = re.match(r"[a-z ]+?(?= (?:of|that|without|to)\b|$)", reason)
    return reason if count == 1 or noun is None else f"{noun[0]}s{reason[noun.end() :]}"


def open_source(dataset: Dataset, image: ImageSpec) -> tuple[Source, list[str]]:
    """Open a data set; return its source and the notices that it gave."""
    notices: list[str] = []
    with noticing(notices):
        source = dataset.build(image)
    return source, notices


def announce(dataset: Dataset, samplers: Iterable[Sampler], console: Console) -> None:
    """Print where images will come from, before anything is opened: it may be a stranger's recipe.

    They come from the data set, and from those samplers that have images of their own.
    """
    server = dataset.asks()
    asks = f"; asks {server}" if server else ""
    console.print(f"Opening the data set {name_of(dataset)}{asks}")
    for sampler in samplers:
        if sampler.own_images:
            console.print(f"Opening the images of the sampler {name_of(sampler)}")


def name_of(part: Component) -> str:
    """Return a part's type and the fields that the recipe sets, as a line of text."""
    left_out = {"on_bad", "max_bad"}  # which change no image
    fields = part.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    words = [fields.pop("type")]
    for key, value in fields.items():
        inner = getattr(part, key)
        words.append(f"{key}={f'({name_of(inner)})' if isinstance(inner, Dataset) else value}")
    return " ".join(words)


def watched_on(console: Console) -> Watch:
    """Return what shows on a console how a long task goes on."""

    @contextmanager
    def watch(label: str, images: int) -> Iterator[Callable[[int], None]]:
        with console.progress(label, images) as advance:
            yield lambda count: advance(count, ())

    return watch


def open_store(
    source: Source,
    image: ImageSpec,
    watch: Watch = unwatched,
    max_bad: float | None = None,
    name: str = "",
    report: Callable[[str], None] = lambda _: None,
    advice: str = "",
    *,
    verify: bool = False,
) -> Store:
    """Return the store of a source for this kind of image; build it if the cache has none.

    `watch` shows how images are decoded or verified, and `report` is called with messages for the
    user. `max_bad` is the largest share of images that may be unreadable; without it none may be.
    More are a `DataError`, after all images were read: it names them, and ends with `advice`, by
    default the settings to go on. `name` stands for the source in the list of the cache.
    With `verify` the images are hashed, whenever that was done before. A damaged store is built
    again, with a `Notice`.
    """
    folder = _folder(source.fingerprint, image)
    names, limit = names_of(source, image), cache.limit()

    def read(folder: Path) -> Store:
        return _read(folder, source.fingerprint, image, watch, verify=verify)

    def build(place: Path, file: BinaryIO) -> None:
        kind, told = KINDS[0], report if max_bad is None else None
        while kind:  # again, when wider values come late
            require_room(source, image, kind)
            file.seek(0)
            file.truncate()
            with watch("Preparing", len(source)) as progress:
                kind = _build(source, image, place, file, progress, name, told, kind)

    def waiting() -> None:
        report("Another run decodes these images; waiting")

    try:
        store, built = cache.obtain(folder, read, build, waiting)
    except OSError as error:
        needed = len(source) * image.pixel_values / 2**20
        message = f"{error.strerror or error} (it takes up to {needed:,.0f} MiB; VGX_CACHE"
        raise StorageError(f"{folder}: {message} says where)") from error
    if built:
        for removed in cache.remove(limit):
            report(f"Removed from the cache, which is full: {removed.line}")
    # The store may have been built by a recipe that allows more of them.
    if store.bad > (max_bad or 0) * len(source):
        listed = folder / sums.ABOUT
        message = unreadable(store.bad, store.named, len(source), max_bad, advice, listed)
        raise DataError(message)
    return replace(store, names=names, left_out=files_left_out(source))


def exists(source: Source, image: ImageSpec) -> bool:
    """Return whether the cache has the store of a source, so that nothing must be decoded."""
    return _folder(source.fingerprint, image).is_dir()


def require_writable_cache(source: Source, image: ImageSpec) -> None:
    """Raise `StorageError` when a source has no store, and none can be written."""
    if not isinstance(source, Grouped) and not exists(source, image):
        require_writable(cache.folder())


def require_room(source: Source, image: ImageSpec, kind: str = KINDS[0]) -> None:
    """Raise `StorageError` when the store of a source is larger than the cache or its disk allow.

    A store that exists needs no room. `kind` is that of the values.
    """
    streamed = isinstance(source, Grouped)  # no more is kept than there is room for
    if not streamed and not exists(source, image):
        numbers = 2 if image.classes else 1  # of 8 bytes: a hash, and a label
        size = image.pixel_values * np.dtype(kind).itemsize
        cache.require_room(len(source), size + 8 * numbers)


def cached(fingerprint: str, image: ImageSpec, watch: Watch = unwatched) -> Store | None:
    """Return the store of a source with this fingerprint, without the source itself.

    None when the cache has no such store, and with a `Notice` when it is damaged. Raises
    `StorageError` for a cache that cannot be read.
    """
    folder = _folder(fingerprint, image)
    try:
        return cache.look_up(folder, lambda store: _read(store, fingerprint, image, watch))
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error


def _folder(fingerprint: str, image: ImageSpec) -> Path:
    """Return where the store of a source lies, whether it is there or not."""
    behind: object = decoding.colour(image.background)
    if image.channels == 4 and image.background == "auto":
        behind = "transparent"
    shape = f"{image.height}x{image.width}|{image.channels}"
    address = f"{fingerprint}|{shape}|{image.fit}|{behind}|{POLICY}"
    if image.classes:
        address += f"|{image.classes} classes"
    return cache.folder() / hashlib.sha256(address.encode()).hexdigest()[:32]


def _read(
    folder: Path, fingerprint: str, image: ImageSpec, watch: Watch, *, verify: bool = False
) -> Store:
    """Verify a store and map its images. Raises `DamagedError`, `OSError`."""
    with cache.open_images(folder) as file:
        about = sums.read_about(folder)
        if (about.channels, about.height, about.width) != image.shape:
            raise sums.DamagedError(f"{sums.ABOUT} is that of other images")
        hashes = sums.read_column(folder, sums.HASHES, about)
        labels = sums.read_column(folder, sums.LABELS, about) if image.classes else b""
        sums.check_images(folder, file, about, labels, watch, always=verify)
        shape = about.count, image.height, image.width, image.channels
        # The map keeps the file's lock: a store that is mapped is not removed.
        values = np.memmap(file, about.kind, "r", shape=shape)
    ends = limits(image, about.kind, about.low, about.high)
    require_known_background(image, about.kind, ends)
    images = as_given(values, image, *ends)
    content = images.content(about.sha256) if isinstance(images, Scaled) else about.sha256
    return Store(
        images,
        np.frombuffer(hashes, np.uint64).copy(),
        np.frombuffer(labels, np.int64).copy() if image.classes else None,
        settled(image, images),
        fingerprint,
        content,
        about.dropped,
        about.bad,
        tuple(about.named),
        about.kind,
        Look.read(about.look),
        tuple(about.classes),
    )


def settled(image: ImageSpec, images: Images) -> ImageSpec:
    """Return the same with numbers for `range: auto`, if the images have more than 8 bits."""
    if isinstance(images, Scaled):
        return replace(image, range=(images.low, images.high))
    return image


def _looked_at(file: str, image: ImageSpec, hashes: list[int], facts: Facts) -> Look:
    """Look at the images in a file that has just been written."""
    shape = len(hashes), image.height, image.width, image.channels
    values = np.memmap(file, facts.kind, "r", shape=shape)
    ends = limits(replace(image, range="auto"), facts.kind, *facts.ends)
    return look(values, np.array(hashes, np.uint64), image, ends, facts)


def labelled(source: Source, image: ImageSpec) -> Labelled:
    """Return a source as one with labels. Raises `DataError` for one without."""
    if not isinstance(source, Labelled):
        raise DataError(f"image.classes: {image.classes}: the data set gives its images no labels")
    return source


def label_of(source: Source, index: int, image: ImageSpec) -> int:
    """Return the label of an image. Raises `DataError` when there is none, or no such class."""
    label = labelled(source, image).label(index)
    if not 0 <= label < image.classes:
        most = image.classes - 1
        raise DataError(f"image {index} has the label {label}; image.classes allows 0 to {most}")
    return label


def _build(
    source: Source,
    image: ImageSpec,
    place: Path,
    file: BinaryIO,
    progress: Callable[[int], None],
    name: str,
    report: Callable[[str], None] | None,
    kind: str,
) -> str:
    """Write a store into `place`, its images into the open `file` there.

    `report` is called with the first unreadable image. Returns a wider kind of values when there
    are some; then all must be written again as that.
    """
    digest, unusable, facts = hashlib.sha256(), Unusable(), Facts()
    labels, hashes = list[int](), list[int]()
    with decoding.guarded():
        for piece in decode_all(source, image, kind):
            if piece.facts.kind != kind:
                return piece.facts.kind
            progress(piece.count)
            facts.add(piece.facts)
            for fault in piece.faults:
                unusable.add(fault)
                if report and len(unusable.bad) == 1 and isinstance(fault, DataError):
                    report(f"{fault}; the others are read too, so that all such images are named")
            file.write(piece.data)
            digest.update(piece.data)
            hashes += piece.hashes
            labels += [label_of(source, row, image) for row in piece.rows if image.classes]
    file.flush()
    os.fsync(file.fileno())
    if not hashes:
        raise DataError(unusable.nothing_else(f"{len(source):,}"))
    if unusable.dropped.total() > len(hashes) and (settings := unusable.settings()):
        few = f"only {len(hashes):,} of {len(source):,} images are used: {unusable.counts()}"
        warnings.warn("\n".join([few, *settings]), Notice, stacklevel=2)
    columns = {sums.HASHES: np.array(hashes, np.uint64).tobytes()}
    if image.classes:
        columns[sums.LABELS] = np.array(labels, np.int64).tobytes()
        digest.update(columns[sums.LABELS])
    for column, data in columns.items():
        write_file(place / column, data)
    about = sums.About(
        address=place.name.removeprefix("."),
        source=decoding.printable(name or source.fingerprint),
        height=image.height,
        width=image.width,
        channels=image.channels,
        kind=kind,
        low=facts.ends[0],
        high=facts.ends[1],
        count=len(hashes),
        dropped=dict(sorted(unusable.dropped.items())),
        bad=len(unusable.bad),
        named=unusable.bad[: sums.NAMED],
        look=asdict(_looked_at(file.name, image, hashes, facts)),
        sha256=digest.hexdigest(),
        sums={column: hashlib.sha256(data).hexdigest() for column, data in columns.items()},
        classes=list(names_of(source, image)),
    )
    write_file(place / sums.ABOUT, about.text())
    return ""
