"""A small model with new networks, for tests of samplers and metrics that are given one.

Letters: B images, Z the latent shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.parts.kinds import Decoder, Encoder
from vgx.parts.values import ImageSpec, LatentSpec
from vgx.recipe.model import Eval, Recipe
from vgx.sampling.model import Model
from vgx.step import Gaussian

CODES = 64  # stored latents


class _Encoder(Encoder, type="testing"):
    """One linear layer for the mean, and a variance of exp(-2)."""

    def build(self, image: ImageSpec, latent: LatentSpec) -> nn.Module:
        layer = nn.Linear(math.prod(image.shape), math.prod(latent.shape))
        network = nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, latent.shape))
        network.register_forward_hook(_gaussian)
        return network


def _gaussian(module: nn.Module, inputs: object, mean: Tensor) -> Gaussian:
    """Make a posterior of what the layers give, a mean [B, *Z]."""
    del module, inputs
    return Gaussian(mean, torch.full_like(mean, -2))


class _Decoder(Decoder, type="testing"):
    """One linear layer from latents to logits, with a mapping that only flattens the latents."""

    def build(self, latent: LatentSpec, image: ImageSpec) -> nn.Module:
        layer = nn.Linear(math.prod(latent.shape), math.prod(image.shape))
        network = nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, image.shape))
        mapped: Any = network
        mapped.map, mapped.decode_mapped = network[:1].forward, network[1:].forward
        network.register_buffer("w_mean", torch.zeros(math.prod(latent.shape)))
        return network


def small_model(image: ImageSpec | None = None, latent: LatentSpec | None = None) -> Model:
    """Return a `vgx.Model` with an encoder and a decoder of one layer each, and 64 stored latents.

    Its recipe has neither a data set nor a training: it can be read, not run.
    """
    image, latent = image or ImageSpec(16), latent or LatentSpec((8,))
    encoder, decoder = _Encoder(), _Decoder()
    with rng.ambient(0, "testing model"):
        networks = encoder.build(image, latent), decoder.build(latent, image)
    for network in networks:
        network.eval().requires_grad_(False)
    fields: dict[str, Any] = {
        "name": "testing",
        "image": image,
        "latent": latent,
        "encoder": encoder,
        "decoder": decoder,
        "losses": (),
        "eval": Eval(),
    }
    recipe = Recipe.model_construct(**fields)
    generator = rng.generator(0, "testing codes")
    codes = torch.randn((CODES, *latent.shape), generator=generator)  # [K, *Z]
    labels = torch.arange(CODES) % image.classes if image.classes else None  # [K]
    return Model(recipe, 0, codes, *networks, None, labels)
