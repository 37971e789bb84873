"""Neighbouring images of a source, decoded together by threads.

Letters: N images, H x W pixels, C channels.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgx.data.decode import WHITE, Decoded, decode
from vgx.data.pixels import widened, widest
from vgx.errors import DataError, Dropped
from vgx.parts.kinds import Source
from vgx.parts.values import ImageSpec

AT_ONCE = 32  # images that one task of a thread decodes
IN_FLIGHT = 2**28  # bytes of decoded images that wait to be written, about


@dataclass
class Facts:
    """What is known of images from before they were resized."""

    kind: str = "uint8"  # of their values, now
    low: float = np.inf  # the smallest of them
    high: float = -np.inf  # the largest
    ratios: list[float] = field(default_factory=list)  # of width to height
    kinds: Counter[str] = field(default_factory=Counter)  # images of each kind
    remarks: Counter[str] = field(default_factory=Counter)  # what their source says of them

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value; those of all white where there are several kinds."""
        return (self.low, self.high) if len(self.kinds) == 1 else (0.0, WHITE[self.kind])

    def add(self, other: Facts) -> None:
        """Add what is known of more images."""
        self.kind = widest(self.kind, other.kind)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.ratios += other.ratios
        self.kinds += other.kinds
        self.remarks += other.remarks


def gather(decoded: Sequence[Decoded], kind: str) -> tuple[NDArray[Any], Facts]:
    """[N, H, W, C]  Return images in one array of the widest kind among theirs and `kind`."""
    kinds = Counter(each.pixels.dtype for each in decoded)
    facts = Facts(widest(kind, *(own.name for own in kinds)))
    facts.kinds.update({own.name: count for own, count in kinds.items()})
    facts.ratios += [each.ratio for each in decoded]
    facts.remarks.update(each.remark for each in decoded if each.remark)
    for own in kinds:
        scale, ends = (
            WHITE[facts.kind] / WHITE[own.name],
            [e for e in decoded if e.pixels.dtype == own],
        )
        facts.low = min(facts.low, *(each.low * scale for each in ends))
        facts.high = max(facts.high, *(each.high * scale for each in ends))
    return np.stack([widened(each.pixels, facts.kind) for each in decoded]), facts


@dataclass(frozen=True)
class Piece:
    """Neighbouring images of a source, decoded."""

    count: int  # usable or not
    data: memoryview  # the bytes of the usable ones
    rows: list[int]  # which are usable
    hashes: list[int]  # of the usable ones
    faults: list[Dropped | DataError]  # of the others
    facts: Facts  # of the usable ones


def decode_all(source: Source, image: ImageSpec, kind: str = "uint8") -> Iterator[Piece]:
    """Decode in threads and yield pieces in order: Pillow decodes without the global lock.

    All values are of the given kind; a piece with wider ones is of theirs.
    """
    threads = os.cpu_count() or 1
    size = image.pixel_values * np.dtype(kind).itemsize
    ahead = min(2 * threads, max(1, IN_FLIGHT // size))  # pieces in flight
    at_once = max(1, min(AT_ONCE, IN_FLIGHT // size // ahead))
    pieces = deque[Future[Piece]]()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), at_once):
            if len(pieces) == ahead:
                yield pieces.popleft().result()
            rows = range(start, min(start + at_once, len(source)))
            pieces.append(pool.submit(_decode_piece, source, image, rows, kind))
        while pieces:
            yield pieces.popleft().result()


def _decode_piece(source: Source, image: ImageSpec, rows: range, kind: str) -> Piece:
    faults, usable, good = list[Dropped | DataError](), list[int](), list[Decoded]()
    for row in rows:
        decoded = decode(source, row, image)
        if isinstance(decoded, Decoded):
            usable.append(row)
            good.append(decoded)
        else:
            faults.append(decoded)
    if not good:
        return Piece(len(rows), memoryview(b""), [], [], faults, Facts(kind))
    values, facts = gather(good, kind)
    data = values.reshape(-1).view(np.uint8).data
    return Piece(len(rows), data, usable, hashes_of(values), faults, facts)


def hashes_of(values: NDArray[Any]) -> list[int]:
    """Return the hash of each of N images' values."""
    return [hash_of(row.data) for row in values.reshape(len(values), -1).view(np.uint8)]


def hash_of(data: bytes | memoryview) -> int:
    """Return the first 64 bits of the BLAKE2b hash of an image's bytes."""
    return int.from_bytes(hashlib.blake2b(data).digest()[:8], "little")
