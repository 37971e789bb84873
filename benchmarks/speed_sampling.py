"""Sampling: decoding latents, and writing images."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tables import ROOT, spread, table
from torch import Tensor

import vgx
from vgx import rng
from vgx.images import save_separately
from vgx.sampling.draw import decoded


def sampling(options: argparse.Namespace) -> str:
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml")
    with rng.ambient(0, "weights"):
        plain = recipe.decoder.build(recipe.latent, recipe.image).eval().requires_grad_(False)
        ours = recipe.decoder.build(recipe.latent, recipe.image).eval().requires_grad_(False)
    ours.load_state_dict(plain.state_dict())
    ours.to(memory_format=torch.channels_last)
    model = vgx.Model(recipe, 0, torch.zeros(1, 256), None, ours, None)
    z = torch.randn(64 if options.quick else 1024, 256)  # [N, Z]

    def eager() -> Tensor:
        with torch.inference_mode():
            return torch.cat([plain(part).sigmoid() for part in z.split(64)])

    def write(images: Tensor, folder: Path) -> None:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"{number:06}.png")

    with tempfile.TemporaryDirectory() as place:
        folder, images = Path(place), eager()
        candidates: dict[str, Callable[[], object]] = {
            "decoded, then written one by one": lambda: write(eager(), folder),
            "`vgx sample --separate`": lambda: [*save_separately(decoded(model, z), folder)],
            "only decoded": eager,
            "only decoded, as `vgx sample` does": lambda: [*decoded(model, z)],
            "only written, one by one": lambda: write(images, folder),
            "only written, as `vgx sample` does": lambda: [
                *save_separately(images.split(64), folder)
            ],
        }
        speeds: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(options.rounds + 1):  # the first turn is for warming up
            for name, candidate in candidates.items():
                start = time.perf_counter()
                candidate()
                if turn:
                    speeds[name].append(len(z) / (time.perf_counter() - start))
    first = next(iter(speeds.values()))
    rows = [
        [name, spread(values), spread([a / b for a, b in zip(values, first, strict=True)])]
        for name, values in speeds.items()
    ]
    intro = f"{len(z):,} images of 96 pixels from the decoder of the anime VAE-GAN."
    results = table(["what", "images/s", "relative to the first"], rows)
    return f"## Sampling\n\n{intro}\n\n{results}"
