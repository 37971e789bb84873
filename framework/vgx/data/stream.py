"""Images of a grouped source, read and decoded when they are asked for, or shortly before.

A group is read as a whole and stays in memory, encoded, until later groups push it out. A decoded
image is kept on the disk when there is room. An image that cannot be used is replaced by the next
one of its group that can: which one is a function of its row alone, whatever was read before.

Letters: N images, n asked for, H x W pixels, C channels, G groups.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vgx import rng
from vgx.data import decode as decoding
from vgx.data.pixels import without_measuring
from vgx.data.spill import Spill
from vgx.data.unusable import Unusable, unreadable
from vgx.errors import DataError, Dropped
from vgx.parts.kinds import Encoded, Grouped
from vgx.parts.values import ImageSpec

WINDOW = 2**27  # bytes of the encoded images of a window; two windows are in memory
WIDEST = 8  # groups of a window
READERS = 8  # threads that read groups, which mostly wait
AHEAD = 2**26  # bytes of decoded images that wait to be used, about
SLOW = 10.0  # seconds after which the user is told what is waited for
UNKNOWN, UNUSABLE, USABLE = -1, -2, -3  # instead of an image's place on the disk
T = TypeVar("T")


def width(source: Grouped) -> int:
    """Return how many groups make a window: a property of the data, since the order depends on it.

    At most `WIDEST`, and as many as fit into `WINDOW` bytes, but at least one.
    """
    return max(1, min(WIDEST, WINDOW // max(source.group_bytes, 1)))


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the numbers below `count`, evenly chosen."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


class Workers:
    """Threads for which a program does not wait when it ends: a server may never answer."""

    def __init__(self, threads: int) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=_work, args=[self._tasks], daemon=True).start()
        self._end = weakref.finalize(self, _end, self._tasks, threads)

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """Let a thread call `task(*arguments)`."""
        future = Future[T]()

        def call() -> None:
            try:
                future.set_result(task(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)

        self._tasks.put(call)
        return future


def _work(tasks: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while task := tasks.get():
        task()
        del task  # it holds what it was given


def _end(tasks: queue.SimpleQueue[Callable[[], None] | None], threads: int) -> None:
    for _ in range(threads):
        tasks.put(None)


class Groups:
    """The groups that were used last, encoded and in memory."""

    def __init__(self, source: Grouped) -> None:
        self._source, self._most = source, 2 * width(source)
        self._workers = Workers(READERS)
        self._read: OrderedDict[int, Future[Encoded]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, group: int) -> Future[Encoded]:
        """Begin to read a group, unless that was done."""
        with self._lock:
            future = self._read.get(group)
            if future is None or (future.done() and future.exception()):
                future = self._read[group] = self._workers.submit(self._source.group, group)
                while len(self._read) > self._most:
                    self._read.popitem(last=False)
            self._read.move_to_end(group)
            return future


@dataclass
class GroupPiece:
    """Some images of one group, decoded."""

    rows: NDArray[np.int64]  # [n]
    images: NDArray[Any]  # [n, H, W, C]  zeros for those that are not usable
    faults: dict[int, Dropped | DataError]  # of those, by place in the piece
    place: int  # on the disk, of the first; -1 for none


class StreamedImages:
    """Images [N, H, W, C] of a grouped source. One thread uses it."""

    def __init__(
        self,
        source: Grouped,
        image: ImageSpec,
        held: NDArray[np.bool_] | None = None,
        max_bad: float | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Stream the images of a source.

        `held` [N] are the images that no training sees: an image is replaced by one on its own
        side. `max_bad` is the largest share of images that may be unreadable; without it the first
        is a `DataError`. `report` is called with messages for the user.
        """
        self.source, self.width = source, width(source)
        self.unusable, self._told = Unusable(), 0  # images that were read and are not usable
        channels, height, wide = image.shape
        self.shape = (len(source), height, wide, channels)
        self._image, self._held, self._max_bad, self._report = image, held, max_bad, report
        self._edges = np.concatenate([[0], np.cumsum(source.groups)]).astype(np.int64)  # [G + 1]
        self._groups, self._workers = Groups(source), Workers(os.cpu_count() or 1)
        self._places: NDArray[np.int32] = np.full(len(source), UNKNOWN, np.int32)  # [N]
        self._left = np.diff(self._edges)  # [G]  images of each group that are not on the disk
        self._spill: Spill | None = None
        self._like: NDArray[Any] | None = None  # [H, W, C]  an image, for the kind of its numbers
        self._ahead: dict[int, Future[GroupPiece]] = {}  # by row

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The size of all images in bytes, decoded."""
        return len(self) * self._image.pixel_values

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """[n, H, W, C]  Return some images, or those that replace them.

        Raises `DataError` when too many are unreadable, and `DataError` or `HubError` when a group
        cannot be read.
        """
        asked = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        places = self._places[asked]  # [n]
        if self._spill and self._like is not None and places.min(initial=0) >= 0:
            return self._spill.read(places, self._like)
        stood, decoded = self._resolved(asked)
        assert self._like is not None
        images = np.empty((len(stood), *self._like.shape), self._like.dtype)
        places = self._places[stood]  # [n]
        stored = places >= 0
        if stored.any():
            assert self._spill is not None
            images[stored] = self._spill.read(places[stored], self._like)
        for index in np.flatnonzero(~stored):
            images[index] = decoded[int(stood[index])]
        return images

    def standing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n]  Return the rows of the images that are returned for `rows`."""
        return self._resolved(np.asarray(rows))[0]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Begin to decode images that will be asked for."""
        places = self._places[rows]
        if places.min(initial=0) >= 0:
            return
        missing = np.unique(rows[(places < 0) & (places != UNUSABLE)]).tolist()
        wanted = np.array([row for row in missing if row not in self._ahead], np.int64)
        if not len(wanted):
            return
        if self._spill is None:
            self._spill = self._begin(int(wanted[0]))
        groups = self._group_of(wanted)  # [n]
        for group in np.unique(groups):
            members = wanted[groups == group]
            place = self._spill.take(len(members))
            piece = self._workers.submit(self._decode, int(group), members, place)
            self._ahead.update(dict.fromkeys(members.tolist(), piece))
        while len(self._ahead) > 4 * self.ahead + len(rows):
            self._forget(next(iter(self._ahead)))

    def expect_groups(self, groups: list[int]) -> None:
        """Begin to read groups whose images will be asked for."""
        for group in groups:
            if self._left[group]:
                self._groups.begin(group)

    @property
    def ahead(self) -> int:
        """How many images may wait to be used."""
        return max(1, AHEAD // max(1, self._image.pixel_values))

    def first(self, rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return `n` of some rows, always the same: all those of a few groups, chosen by a key."""
        groups = self._group_of(rows)
        ranks = np.array([rng.key(0, "groups", group) for group in range(len(self._edges) - 1)])
        return rows[np.argsort(ranks[groups], kind="stable")][:n]

    def spread(self, rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return at most `n` of some rows in rising order: evenly chosen in a few groups."""
        groups = self._group_of(rows)  # [n]
        there, counts = np.unique(groups, return_counts=True)
        few = self.width
        while counts[chosen := evenly(len(there), few)].sum() < n and few < len(there):
            few *= 2
        among = rows[np.isin(groups, there[chosen])]
        return among[evenly(len(among), n)]

    def news(self) -> list[str]:
        """Return a line about unusable images, when there are more than at the last call."""
        if self.unusable.count == self._told:
            return []
        self._told = self.unusable.count
        counts = self.unusable.counts()
        return [f"images replaced by the next ones of their row groups: {counts}"]

    def _group_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._edges, rows, "right") - 1

    def _begin(self, row: int) -> Spill:
        """Make room on the disk for images like the first usable one from a row on."""
        for other in chain([row], self._after(row)):
            group = int(self._group_of(np.array([other]))[0])
            piece = self._result(self._workers.submit(self._decode, group, np.array([other]), -1))
            self._like = piece.images[0]
            if not piece.faults:
                break
        assert self._like is not None
        return Spill(len(self), self._like.nbytes)

    def _forget(self, row: int) -> None:
        """Wait no longer for an image that was expected, as after a rollback."""
        piece = self._ahead.pop(row)
        if piece.done() and not piece.exception():
            self._note(piece.result())

    def _resolved(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[int, NDArray[Any]]]:
        """Return the rows [n] that stand for `rows`, and those images that are not on the disk."""
        stood = rows.astype(np.int64)  # [n]  a copy
        decoded: dict[int, NDArray[Any]] = {}
        self._settle(stood, decoded)
        for index in np.flatnonzero(self._places[stood] == UNUSABLE):
            stood[index] = next(
                (row for row in self._after(int(stood[index])) if self._usable(row, decoded)), -1
            )
            if stood[index] < 0:
                raise DataError(self.unusable.nothing_else(f"{len(self):,}"))
        return stood, decoded

    def _usable(self, row: int, decoded: dict[int, NDArray[Any]]) -> bool:
        self._settle(np.array([row]), decoded)
        return bool(self._places[row] != UNUSABLE)

    def _after(self, row: int) -> Iterator[int]:
        """Yield the rows that may replace one: of its group, then of the groups that follow."""
        group = int(self._group_of(np.array([row]))[0])
        order = np.roll(np.arange(len(self._edges) - 1), -group)
        first, last = self._edges[group], self._edges[group + 1]
        inside = chain(range(row + 1, last), range(first, row))
        others = chain.from_iterable(range(self._edges[g], self._edges[g + 1]) for g in order[1:])
        for other in chain(inside, others):
            if self._held is None or self._held[other] == self._held[row]:
                yield other

    def _settle(self, rows: NDArray[np.int64], decoded: dict[int, NDArray[Any]]) -> None:
        """Decode images that are not on the disk into `decoded`; note the unusable ones."""
        missing = [
            row
            for row in np.unique(rows[self._places[rows] < 0]).tolist()
            if row not in decoded and self._places[row] != UNUSABLE
        ]
        self.expect(np.array(missing, np.int64))
        for row in missing:
            if (future := self._ahead.get(row)) is not None:
                try:
                    piece = self._result(future)
                except BaseException:  # it is tried again when it is asked for again
                    self._ahead = {r: f for r, f in self._ahead.items() if f is not future}
                    raise
                self._note(piece)
                decoded.update(zip(piece.rows.tolist(), piece.images, strict=True))

    def _result(self, piece: Future[GroupPiece]) -> GroupPiece:
        if not wait([piece], SLOW).done:
            self._report("Waiting for images: the disk or the server is slow")
        return piece.result()

    def _note(self, piece: GroupPiece) -> None:
        """Note what became of the images of a piece."""
        group = self._group_of(piece.rows[:1])
        self._left[group] -= len(piece.rows) if piece.place >= 0 else len(piece.faults)
        for index, row in enumerate(piece.rows.tolist()):
            self._ahead.pop(row, None)
            if index in piece.faults:
                self._places[row] = UNUSABLE
            else:
                self._places[row] = USABLE if piece.place < 0 else piece.place + index
        for fault in piece.faults.values():
            self._count(fault)

    def _count(self, fault: Dropped | DataError) -> None:
        """Count an unusable image. Raises `DataError` when too many are unreadable."""
        self.unusable.add(fault)
        bad = self.unusable.bad
        if len(bad) > (self._max_bad or 0) * len(self):
            raise DataError(unreadable(len(bad), bad, len(self), self._max_bad))

    def _decode(self, group: int, rows: NDArray[np.int64], place: int) -> GroupPiece:
        """Decode some images of a group, and write them to the disk from `place` on."""
        source, first = self._groups.begin(group).result(), int(self._edges[group])
        images, faults = list[NDArray[Any] | None](), dict[int, Dropped | DataError]()
        for index, row in enumerate(rows.tolist()):
            decoded = decoding.decode(source, row - first, self._image)
            if isinstance(decoded, decoding.Decoded):
                images.append(without_measuring(decoded.pixels, self._image))
            else:
                images.append(None)
                faults[index] = decoded
        some = next((each for each in images if each is not None), np.zeros(self.shape[1:], "u1"))
        whole = np.stack([np.zeros_like(some) if each is None else each for each in images])
        if place >= 0 and self._spill is not None and not self._spill.write(place, whole):
            place = -1
        return GroupPiece(rows, whole, faults, place)


class StreamedLabels:
    """Labels [N] of streamed images: of an image that is replaced, the label of the other."""

    def __init__(self, images: StreamedImages, labels: NDArray[np.int64]) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """[n]  Return the labels of some images."""
        asked = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        return self._labels[self._images.standing(asked)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """[N]  Return all labels as the source has them."""
        return np.array(self._labels, dtype, copy=True if copy is None else copy)
