"""The order of the images of an epoch: a function of the seed, the epoch and the position.

Nothing is saved: the image at any position is known without the images before it.

Letters: N images, G groups, M images of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vgx import rng


class Shuffled:
    """A permutation of all images in each epoch."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        """Take the images [N] to go through."""
        self._rows = rows
        self._epoch: tuple[int, int] = (-1, -1)
        self._permuted = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, seed: int, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Return the images at the positions from `first` to before `last`."""
        if self._epoch != (seed, epoch):
            generator = rng.generator(seed, "order", epoch)
            self._permuted = self._rows[torch.randperm(len(self), generator=generator).numpy()]
            self._epoch = seed, epoch
        return self._permuted[first:last]


class Windowed:
    """A permutation of groups of neighbouring images, and one within each window of groups.

    Groups are read as a whole, so an epoch reads each once, and never more than two windows at a
    time.
    """

    def __init__(
        self, groups: Sequence[int], width: int, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Take how many images each group has, and how many groups a window has.

        `rows`, in rising order, are the images to go through; None means all.
        """
        ends = np.cumsum(groups, dtype=np.int64)  # [G]
        edges = np.concatenate([[0], ends])  # [G + 1]  where groups begin among all images
        if rows is not None:
            edges = np.searchsorted(rows, edges)  # and among those to go through
        self._width, self._rows, self._edges = width, rows, edges
        self._groups = np.flatnonzero(np.diff(edges))  # those with images to go through
        self._epoch: tuple[int, int] = (-1, -1)
        self._order = self._groups  # of the groups in that epoch
        self._ends = edges[:0]  # the position after the last image of each window
        self._windows: dict[int, NDArray[np.int64]] = {}  # the last ones of that epoch

    def __len__(self) -> int:
        return int(self._edges[-1])

    def rows(self, seed: int, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Return the images at the positions from `first` to before `last`."""
        number = self._window_at(seed, epoch, first)
        parts, start = [self._rows_of(())], self._starts(number)
        while start < last and number < len(self._ends):
            window = self._window(number)
            parts.append(window[max(first - start, 0) : last - start])
            start += len(window)
            number += 1
        return np.concatenate(parts)

    def next_groups(self, seed: int, epoch: int, position: int) -> list[int]:
        """Return the groups of the window after that of a position, in this epoch or the next."""
        number = self._window_at(seed, epoch, position) + 1
        if number == len(self._ends):
            order = self._permuted(seed, epoch + 1)
            number = 0
        else:
            order = self._order
        groups: list[int] = order[number * self._width : (number + 1) * self._width].tolist()
        return groups

    def _permuted(self, seed: int, epoch: int) -> NDArray[np.int64]:
        generator = rng.generator(seed, "order", epoch)
        order: NDArray[np.int64] = torch.randperm(len(self._groups), generator=generator).numpy()
        return self._groups[order]

    def _window_at(self, seed: int, epoch: int, position: int) -> int:
        """Lay out an epoch; return the number of the window that has a position."""
        if self._epoch != (seed, epoch):
            self._order = self._permuted(seed, epoch)
            ends = np.cumsum(np.diff(self._edges)[self._order])
            self._ends = np.append(ends[self._width - 1 : -1 : self._width], ends[-1:])
            self._windows, self._epoch = {}, (seed, epoch)
        return int(np.searchsorted(self._ends, position, "right"))

    def _starts(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _window(self, number: int) -> NDArray[np.int64]:
        """[M]  Return the images of a window in their order."""
        if number not in self._windows:
            groups = self._order[number * self._width : (number + 1) * self._width]
            rows = self._rows_of(groups)  # [M]
            generator = rng.generator(self._epoch[0], "window", self._epoch[1], number)
            while len(self._windows) > 1:
                del self._windows[next(iter(self._windows))]
            self._windows[number] = rows[torch.randperm(len(rows), generator=generator).numpy()]
        return self._windows[number]

    def _rows_of(self, groups: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        parts = [np.arange(self._edges[group], self._edges[group + 1]) for group in groups]
        places = np.concatenate([np.arange(0), *parts])
        return places if self._rows is None else self._rows[places]
