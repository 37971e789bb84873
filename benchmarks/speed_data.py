"""Data: pictures decoded into the store."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time

from PIL import Image
from tables import spread, table

import vgx
from vgx.data import open_store


def data(options: argparse.Namespace) -> str:
    faces = vgx.discover().part("dataset", "drawn-faces")(count=64).build(vgx.ImageSpec(100))
    pictures = []
    for index in range(64):
        file = io.BytesIO()
        faces[index].save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())

    class Jpegs:
        fingerprint = "benchmark"

        def __len__(self) -> int:
            return 256 if options.quick else 16_384

        def __getitem__(self, index: int) -> Image.Image:
            return Image.open(io.BytesIO(pictures[index % 64]))

    speeds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VGX_CACHE"] = folder
            start = time.perf_counter()
            open_store(Jpegs(), vgx.ImageSpec(96))
            speeds.append(len(Jpegs()) / (time.perf_counter() - start))
    rows = [["JPEGs of 100 pixels decoded, resized and stored", f"{spread(speeds)} pictures/s"]]
    return f"## Data\n\n{table(['what', 'how fast'], rows)}"
