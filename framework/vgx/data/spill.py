"""Decoded images on the disk, as many as fit: a file without a name, gone with its process."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgx.data import cache
from vgx.files import cache_dir, existing


class Spill:
    """Places for images, each written once and read from then on. None is ever freed.

    Images that are read in the same order again and again are best kept like this: whichever were
    replaced, the next ones to be read would be among them.
    """

    def __init__(self, count: int, image_bytes: int) -> None:
        """Take up to `count` images, fewer when the cache or its disk allow fewer."""
        self.count = min(count, _allowed() // image_bytes)  # places that are left or taken
        self._bytes = image_bytes
        self._file = None
        if self.count:
            try:
                cache_dir().mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=cache_dir())  # noqa: SIM115 - held open
                weakref.finalize(self, self._file.close)
                os.ftruncate(self._file.fileno(), self.count * image_bytes)
            except OSError:  # a cache that cannot be written keeps none
                self.count = 0
        self._map: NDArray[Any] | None = None
        self.taken = 0

    def take(self, wanted: int) -> int:
        """Return the first of `wanted` places in a row, or -1 when there are not as many left."""
        if self.taken + wanted > self.count:
            return -1
        self.taken += wanted
        return self.taken - wanted

    def write(self, place: int, images: NDArray[Any]) -> bool:
        """Write images [n, H, W, C] from a place on; return whether the disk took them."""
        data = memoryview(images.tobytes())
        start = place * self._bytes
        try:
            while data and self._file is not None:
                written = os.pwrite(self._file.fileno(), data, start)
                data, start = data[written:], start + written
        except OSError:  # the disk is full: no more is kept
            self.count = 0
            return False
        return True

    def read(self, places: NDArray[np.int32], like: NDArray[Any]) -> NDArray[Any]:
        """[n, H, W, C]  Return the images at some places, of the shape and kind of `like`."""
        if self._map is None or self._map.shape[1:] != like.shape:
            shape = (self._size(), *like.shape)
            # A map is not written to: on a full disk that would end the process.
            self._map = np.memmap(self._file, like.dtype, "r", shape=shape)  # type: ignore[call-overload]
        images: NDArray[Any] = self._map[places]
        return images

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size // self._bytes


def _allowed() -> int:
    """Return the bytes that may be taken: what the cache allows, and half of the free disk."""
    stored = sum(each.bytes for each in cache.content())
    free = shutil.disk_usage(existing(cache_dir())).free
    return max(0, min(cache.limit() - stored, free // 2))
