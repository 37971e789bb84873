"""Data: decoding images into the store, and reading minibatches from it."""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from speed_training import ours, random_images
from tables import ROOT, spread, table
from torch import Tensor

import vgx
from vgx.data.batches import Batches
from vgx.data.store import open_store
from vgx.engine.engine import Engine

SIDE = 96
CPU = torch.device("cpu")
SPEC = vgx.ImageSpec(SIDE)


class Jpegs:
    """JPEGs of 100 pixels: 64 drawn faces, repeated."""

    def __init__(self, count: int) -> None:
        self.count, self.fingerprint = count, f"benchmark {count}"
        faces = vgx.discover().part("dataset", "drawn-faces")(count=64).build(vgx.ImageSpec(100))
        self.files = [jpeg(faces[index]) for index in range(64)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.files[index % 64]))


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def data(options: argparse.Namespace) -> str:
    batches = [16, 64] if options.quick else [16, 32, 64, 128, 256]
    counts = [100, 1000] if options.quick else [1000, 10_000, 100_000]
    return f"""## Data

{building(options, counts)}

A minibatch of the anime VAE-GAN at {SIDE} pixels: gathered, converted to numbers, flipped and
rotated. The share is its part of the time of a training step in `fp32`.

{gathering(options, batches)}

A minibatch of 64 from larger and larger stores. The largest one, a sparse file, is larger than the
memory of this machine, so the pages of each minibatch must be mapped first. The process keeps none
of them.

{growing(options, counts)}"""


def timed(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def building(options: argparse.Namespace, counts: Sequence[int]) -> str:
    rows = []
    for count in counts:
        source, speeds, opened, verified = Jpegs(count), [], [], []
        # The largest needs no repetition: it has enough images.
        for _ in range(options.rounds if count < 100_000 else 1):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["VGX_CACHE"] = folder
                speeds.append(count / timed(open_store, source, SPEC))
                time.sleep(1.1)  # until a check of the store is noted
                verify = functools.partial(open_store, verify=True)
                verified.append(count * SPEC.pixel_values / 1e9 / timed(verify, source, SPEC))
                opened.append(1000 * timed(open_store, source, SPEC))
        rows.append([f"{count:,}", spread(speeds), spread(verified), spread(opened)])
    alone = bound(Jpegs(64))
    cores = os.cpu_count() or 1
    baseline = (
        f"Pillow alone decodes and resizes {alone:,.0f} of these a second on one core, "
        f"{cores * alone:,.0f} on {cores}. SHA-256 alone hashes {hashing():.2f} GB/s."
    )
    header = [
        "JPEGs of 100 pixels", "decoding and storing, images/s", "verifying, GB/s",
        "time to open again, ms",
    ]  # fmt: skip
    return f"{table(header, rows)}\n\n{baseline}"


def hashing() -> float:
    data = bytes(2**27)
    return len(data) / 1e9 / min(timed(hashlib.sha256, data) for _ in range(3))


def bound(source: Jpegs) -> float:
    def work() -> None:
        for index in range(64):
            with source[index] as image:
                image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)

    return 64 / min(timed(work) for _ in range(10))


def gathering(options: argparse.Namespace, batches: Sequence[int]) -> str:
    size, backbone = (32, "test_resnet") if options.quick else (SIDE, "resnet50")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4096, SIDE, SIDE, 3), np.uint8)  # [N, S, S, C]
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml", {"discriminator": None,
        "losses": [{"type": "l1"}]})  # fmt: skip
    engine = Engine(recipe, 1)
    rows = []
    for batch in batches:
        minibatches = Batches(images, batch, 0, CPU)

        def one(number: int, minibatches: Batches = minibatches) -> Tensor:
            return engine.forward.augmented(minibatches[number].images, engine.streams(number))

        minibatches.rows(0)  # the order of an epoch is drawn once
        each = [1000 * timed(one, n) for n in range(min(minibatches.per_epoch, 15))][1:]
        share = "-"
        if batch in (16, 64):
            step, real = ours(size, backbone), random_images(batch, size)
            step(real)
            whole = 1000 * statistics.median(timed(step, real) for _ in range(3))
            share = f"{100 * statistics.median(each) / whole:.2f} %"
        per = 1000 * statistics.median(each) / batch
        rows.append([str(batch), spread(each), f"{per:.0f}", share])
    return table(["batch", "ms", "µs for an image", "share of a step"], rows)


def growing(options: argparse.Namespace, counts: Sequence[int]) -> str:
    sparse = 100_000 if options.quick else 1_500_000
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in [*counts, sparse]:
            file = Path(folder) / str(count)
            with file.open("wb") as opened:
                opened.truncate(count * SPEC.pixel_values)
            images = np.memmap(file, np.uint8, "r", shape=(count, SIDE, SIDE, 3))
            before = anonymous()
            minibatches = Batches(images, 64, 0, CPU)
            minibatches.rows(0)
            numbers = range(min(minibatches.per_epoch, 100))
            each = [1000 * timed(minibatches.__getitem__, number) for number in numbers]
            grown = anonymous() - before
            size = f"{count * SPEC.pixel_values / 1e9:,.1f} GB"
            rows.append([f"{count:,}", size, spread(each), f"{grown:,.0f}"])
    return table(["images", "store", "a minibatch of 64, ms", "memory of the process, MB"], rows)


def anonymous() -> float:
    """Return the memory of this process in MB that no file backs."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("RssAnon:") + 1]) / 1000
