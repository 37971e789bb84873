"""The prior of the second stage on a few images, so that it does not fail after the training.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vgx import rng
from vgx.check.attempt import alike, call, contract
from vgx.check.audit import Finding
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.parts.contract import check_drawn, check_loss_of_prior
from vgx.sampling.draw import built_sampler
from vgx.sampling.model import current_model
from vgx.second import kept
from vgx.second.codes import codes_of, spec_of, values_of
from vgx.step import Step


def try_prior(engine: Engine, step: Step) -> Iterator[Finding]:
    """Compute the loss of the recipe's prior on the codes of a step's images, and draw as many.

    Raises `RecipeError` for settings of the recipe's sampler that the prior does not know.
    """
    recipe, part = engine.recipe, engine.recipe.prior
    if part is None or recipe.encoder is None:
        return
    with torch.no_grad(), evaluating(engine.networks.values()):
        posterior = call(recipe.encoder, engine.forward.encode, step.real, step.labels)
        codes = codes_of(posterior).get(part.of)  # [B, ...]
    shape = None if codes is None else tuple(codes.shape[1:])
    classes = 0 if step.labels is None else recipe.image.classes
    spec = spec_of(part, shape, values_of(engine.networks["encoder"]), classes)
    assert codes is not None  # `spec_of` raises
    codes = codes if part.of == "indices" else codes.float()
    network: Any = call(part, kept.build, part, recipe.latent, spec, recipe.train.seed)
    network.to(engine.device)
    labels = (step.labels,) if part.conditional else ()
    with contract(part):
        check_loss_of_prior(call(part, network.loss, codes, *labels, engine.streams()("check")))
    network.eval()

    def drawn(ambient: int) -> Tensor:
        with rng.ambient(ambient, "check"):
            new: Tensor = call(part, network.draw, len(codes), *labels, rng.generator(0, "check"))
        with contract(part):
            check_drawn(new, codes, spec.codes)
        return new.float()

    if not alike(drawn(0), drawn(1)):
        message = "with the same generator it draws something else: draw from the generator alone"
        yield Finding("random:prior", message)
    if recipe.sampler.needs_prior:
        built_sampler(recipe.sampler, replace(current_model(engine, 0), prior=network))
    # What the training reads of it later.
    _ = part.steps, part.batch, part.lr, part.ema
