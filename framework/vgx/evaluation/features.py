"""Real images to compare with, and the features in which metrics compare images.

Letters: N images, C channels, H x W pixels, F features.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vgx.data.batches import as_images
from vgx.data.split import held_out
from vgx.data.store import Images, Labels, Store
from vgx.distributed.group import sum_over_processes
from vgx.distributed.pieces import gathered, own_pieces
from vgx.distributed.processes import local_rank
from vgx.errors import Notice, StorageError
from vgx.files import cache_dir
from vgx.parts.kinds import Features
from vgx.parts.values import ImageSpec
from vgx.runs import summed
from vgx.sampling.model import CHUNK

MOST = 2**34  # bytes of a file of features: two million images in the features of Inception
HELD_OUT = "held out"  # the split of such images
Advance = Callable[[int], None]  # is called with the number of images just processed


def ignore(_: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, eq=False)
class RealImages:
    """Some images of a store."""

    images: Images  # [all, H, W, C]  of the store
    rows: NDArray[np.int64]  # [N]  which of them
    labels: Labels | None  # [all]  of the store
    content: str  # SHA-256 of all images of the store
    split: str  # "held out", "trained on" or "of another data set"
    of: int  # how many images the split has

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, start: int, count: int, device: torch.device) -> Tensor:
        """[<=count, C, H, W]  Return `count` images from number `start` on."""
        return as_images(self.images[self.rows[start : start + count]], device)

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Go through this process's share: images [<=CHUNK, C, H, W] and their labels each time."""
        labels = self.labels_on(device)
        for start in range(0, len(self), CHUNK)[own_pieces()]:
            own = None if labels is None else labels[start : start + CHUNK]
            yield self.batch(start, CHUNK, device), own

    def labels_on(self, device: torch.device) -> Tensor | None:
        """[N]  Return the labels of the images."""
        return None if self.labels is None else torch.from_numpy(self.labels[self.rows]).to(device)

    def label_counts(self, image: ImageSpec) -> NDArray[np.int64] | None:
        """[classes]  Return how many of the images have each label, so that samples have as many.

        None when the labels are not known, as those of another data set.
        """
        if self.labels is None:
            return None
        return np.bincount(self.labels[self.rows], minlength=image.classes)


class RealSets(NamedTuple):
    """The real images of an evaluation."""

    reconstructed: RealImages  # these are encoded and decoded
    reference: RealImages  # samples are compared with these

    @property
    def held_out(self) -> RealImages | None:
        """The images that are reconstructed, if the training did not see them but their others."""
        return self.reconstructed if self.reconstructed.split == HELD_OUT else None


def real_sets(store: Store, holdout: float | None, n: int) -> RealSets:
    """Choose at most `n` images for each set by their hashes, so the order of files has no effect.

    `holdout` is the share that the training did not see; None means that it saw none of the store.
    Samples are compared with images that were trained on, as in published results.
    """

    def some(among: NDArray[np.bool_], split: str) -> RealImages:
        rows = np.flatnonzero(among)
        chosen = store.first(rows, n)
        return RealImages(store.images, chosen, store.labels, store.content, split, len(rows))

    if holdout is None:
        others = some(np.ones(len(store.images), bool), "of another data set")
        return RealSets(others, others)
    held = held_out(store.hashes, holdout)
    trained = some(~held, "trained on")
    return RealSets(some(held, HELD_OUT) if held.any() else trained, trained)


@dataclass(eq=False)
class FeatureCache:
    """Features of images: each network is built once, and each set of real images is seen once.

    `version` returns the version of a part's plugin, since other code may give other features.
    """

    image: ImageSpec
    device: torch.device
    version: Callable[[Features], str] = lambda _: ""
    on_disk: bool = True  # keep features of real images in the folder of the cache
    networks: dict[str, nn.Module] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    known: dict[str, Tensor] = field(default_factory=dict)

    def network(self, part: Features) -> nn.Module:
        """Return a part's network."""
        name = part.model_dump_json()
        if name not in self.networks:
            built = part.build(self.image).to(self.device).eval()
            self.networks[name] = built.requires_grad_(False)
        return self.networks[name]

    @torch.no_grad()
    def features(self, part: Features, images: Tensor) -> Tensor:
        """[N, F]  Return the features of images [N, C, H, W], on the CPU."""
        features: Tensor = self.network(part)(images).float().cpu()
        return features

    def real_features(self, part: Features, real: RealImages, advance: Advance = ignore) -> Tensor:
        """[N, F]  Return the features of real images; from the cache if they are there.

        Else each process computes its share of them.
        """
        address = self.address(part, real)
        file = cache_dir() / "features" / f"{address}.safetensors"
        if address not in self.known and self.on_disk:
            try:
                self.known[address] = summed.read(file, address, MOST)["features"]
            except FileNotFoundError:
                pass
            except (OSError, StorageError) as error:
                text = f"features of real images are computed again: {error}"
                warnings.warn(text, Notice, stacklevel=2)
        # The caches of several machines may differ.
        if not sum_over_processes(torch.tensor(int(address not in self.known))):
            advance(len(real))
            return self.known[address]
        batches = real.batches(self.device)
        pieces = []
        for piece in gathered({"of": self.features(part, images)} for images, _ in batches):
            pieces.append(piece["of"])
            advance(len(piece["of"]))
        self.known[address] = torch.cat(pieces)
        if self.on_disk and local_rank() == 0:
            with suppress(StorageError):  # a cache that cannot be written keeps none
                summed.write(file, {"features": self.known[address]}, address)
        return self.known[address]

    def address(self, part: Features, real: RealImages) -> str:
        """Return a hash of everything that the features of real images depend on."""
        what = [
            real.content,
            hashlib.sha256(real.rows.tobytes()).hexdigest(),
            repr(self.image),  # of a stream `content` is that of the source
            part.model_dump_json(),
            self.digest(part),
            self.version(part),
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]

    def digest(self, part: Features) -> str:
        """Return the SHA-256 of a network's weights, which is computed once."""
        name = part.model_dump_json()
        if name not in self.digests:
            digest = hashlib.sha256()
            for key, tensor in sorted(self.network(part).state_dict().items()):
                digest.update(key.encode())
                digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            self.digests[name] = digest.hexdigest()
        return self.digests[name]
