"""Sampling: latents decoded into pictures."""

from __future__ import annotations

import argparse
import time

import torch
from tables import ROOT, spread, table

import vgx


def sampling(options: argparse.Namespace) -> str:
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml")
    decoder = recipe.decoder.build(recipe.latent, recipe.image).eval()
    model = vgx.Model(recipe, 0, torch.zeros(1, 256), None, decoder, None)
    z = torch.randn(64 if options.quick else 2000, 256)  # [N, Z]
    speeds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        model.decode(z)
        speeds.append(len(z) / (time.perf_counter() - start))
    rows = [["latents decoded at 96 pixels", f"{spread(speeds)} pictures/s"]]
    return f"## Sampling\n\n{table(['what', 'how fast'], rows)}"
