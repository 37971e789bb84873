"""Minibatches by number, and decoded bytes as images in [0, 1].

Letters: N images, B in a minibatch, H x W pixels, C channels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx.data.order import Shuffled, Windowed
from vgx.data.store import Images, Labels, Store
from vgx.data.stream import StreamedImages
from vgx.distributed.state import group
from vgx.errors import DataError

READ = 4096  # images that are copied to a device at once
AHEAD = 8  # minibatches that are decoded before they are needed, at most


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and their labels."""

    images: Tensor  # [B, C, H, W]  in [0, 1]
    labels: Tensor | None = None  # [B]

    def __len__(self) -> int:
        return len(self.images)

    def chunk(self, n: int) -> list[Batch]:
        """Split into at most `n` batches, as `torch.chunk` does."""
        images = self.images.chunk(n)
        labels = [None] * len(images) if self.labels is None else self.labels.chunk(n)
        return [Batch(*pair) for pair in zip(images, labels, strict=True)]


class Batches:
    """Minibatches by number: a permutation keyed by seed and epoch, so a resume needs no state."""

    def __init__(
        self,
        images: Images,
        batch: int,
        seed: int,
        device: torch.device,
        labels: Labels | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Take images [N, H, W, C] and labels [N]; use all of them, or those in `rows` [M].

        Raises `DataError` when they do not fill one minibatch.
        """
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self._labels = labels
        self._order = _order_of(images, rows)
        self.per_epoch = minibatches(len(self._order), batch)
        self._looked = 0  # minibatches whose images are expected already
        self.resident: Tensor | None = None  # [N, H, W, C]  the images, if they are on the device

    def reseeded(self, seed: int) -> Self:
        """Return a copy with the same images in the order of another seed."""
        other = copy.copy(self)
        other.seed, other._looked = seed, 0  # noqa: SLF001 - of the same class
        return other

    def rows(self, number: int) -> NDArray[np.int64]:
        """[B]  Return which images are in minibatch `number`, counted from the first step."""
        epoch, place = divmod(number, self.per_epoch)
        return self._order.rows(self.seed, epoch, place * self.batch, (place + 1) * self.batch)

    def own_rows(self, number: int, pieces: int) -> NDArray[np.int64]:
        """[B/P]  Return this process's share of `rows`: equally much of each piece."""
        parts = self.rows(number).reshape(pieces, group().size, -1)
        return parts[:, group().rank].ravel()

    def __getitem__(self, number: int) -> Batch:
        """Return minibatch `number` on the device."""
        return self.shared(number, 1)

    def shared(self, number: int, pieces: int) -> Batch:
        """Return this process's share of minibatch `number`, on the device."""
        rows = self.own_rows(number, pieces)
        if self.resident is not None:
            images = as_floats(self.resident[sent(torch.from_numpy(rows), self.device)])
        else:
            if isinstance(self.images, StreamedImages):
                self._look_ahead(number, pieces, self.images)
            images = as_images(self.images[rows], self.device)
        if self._labels is None:
            return Batch(images)
        return Batch(images, sent(torch.from_numpy(self._labels[rows]), self.device))

    def _look_ahead(self, number: int, pieces: int, images: StreamedImages) -> None:
        """Begin to read and decode what this process needs for a minibatch and the next ones."""
        after = number + 1 + min(AHEAD, images.ahead // self.batch)
        # Those before were looked at with the last minibatch.
        for later in range(self._looked if number < self._looked < after else number, after):
            images.expect(self.own_rows(later, pieces))
        self._looked = after
        if isinstance(self._order, Windowed):
            epoch, place = divmod(number, self.per_epoch)
            groups = self._order.next_groups(self.seed, epoch, place * self.batch)
            images.expect_groups(groups)

    def reside(self) -> None:
        """Copy all images to the device, where a minibatch is then gathered; but no stream."""
        if isinstance(self.images, StreamedImages):
            return
        kind = torch.from_numpy(np.array(self.images[:1])).dtype
        self.resident = torch.empty(self.images.shape, dtype=kind, device=self.device)
        for start in range(0, len(self.images), READ):
            part = self.images[start : start + READ]
            self.resident[start : start + READ] = torch.from_numpy(np.array(part)).to(self.device)


def _order_of(images: Images, rows: NDArray[np.int64] | None) -> Shuffled | Windowed:
    if isinstance(images, StreamedImages):
        return Windowed(images.source.groups, images.width, rows)
    return Shuffled(np.arange(len(images)) if rows is None else rows)


def minibatches(images: int, batch: int) -> int:
    """Return how many minibatches an epoch has; images that do not fill one are left out.

    Raises `DataError` when there is none.
    """
    if images < batch:
        counts = f"{images:,} images don't fill one minibatch of {batch:,}"
        raise DataError(f"{counts}; lower train.batch to {images:,}")
    return images // batch


def as_batch(store: Store, n: int, device: torch.device) -> Batch:
    """Return the first `n` images of a store, with their labels if it has any."""
    labels = None if store.labels is None else torch.from_numpy(store.labels[:n]).to(device)
    return Batch(as_images(store.images[:n], device), labels)


def as_images(pixels: NDArray[Any], device: torch.device | str) -> Tensor:
    """[B, C, H, W]  Return pixels [B, H, W, C] as images in [0, 1], in channels-last memory.

    Pixels are bytes from 0 to 255, or floats in [0, 1] already.
    """
    # A gathered array is a copy already; a view of a store is read-only, which PyTorch refuses.
    own = np.require(pixels, requirements=["C", "W"])
    return as_floats(sent(torch.from_numpy(own), device))  # [B, C, H, W]


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device, without waiting for a GPU."""
    if torch.device(device).type == "cuda":
        values = values.pin_memory()  # without this the copy waits for the device
    return values.to(device, non_blocking=True)


def as_floats(pixels: Tensor) -> Tensor:
    """[B, C, H, W]  Do the same with a tensor of pixels, on its device."""
    images = pixels.permute(0, 3, 1, 2)
    return images.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else images
