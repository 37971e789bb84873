"""The contract of priors.

Letters: B images, Z the latent shape.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import same_tensors
from vgx.parts.contract import check_drawn, check_loss_of_prior
from vgx.parts.values import CodeSpec
from vgx.testing.case import B, Case, built, require, saved_and_loaded, unchanged, with_generator

VALUES = 5  # of an index


def check_prior(case: Case) -> None:
    """Check the loss of a prior, its gradients, and what it draws."""
    part, latent = case.part, case.latent
    channels = latent.shape[0]
    mean, deviation = (0.0,) * channels, (1.0,) * channels
    spec = CodeSpec(latent.shape, 0, case.image.classes, mean, deviation)
    generator = rng.generator(0, "testing codes")
    codes = torch.randn((B, *latent.shape), generator=generator)  # [B, *Z]
    if part.of == "indices":
        spec = CodeSpec(latent.shape[1:], VALUES, case.image.classes)
        codes = torch.randint(VALUES, (B, *spec.shape), generator=generator)  # [B, *places]
    labels = (case.labels if case.image.classes else None,) if case.conditional else ()

    def build(part: Any) -> Any:
        return part.build(latent, spec)

    network = built(build, part)
    require(isinstance(network, nn.Module), "build does not give a torch.nn.Module")
    same = same_tensors(network.state_dict(), built(build, part).state_dict())
    case.check(same, "its first weights draw not only from torch")
    loss = unchanged("the codes", codes, lambda: with_generator(network.loss, codes, *labels))
    check_loss_of_prior(loss)
    weights = {name: w for name, w in network.named_parameters() if w.requires_grad}
    gradients = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        case.check(gradient is not None, f"no gradient reaches its {name}: freeze it or use it")
    network.eval()
    losses = [with_generator(network.loss, codes, *labels, ambient=each) for each in (0, 1)]
    case.check(torch.equal(*losses), "its loss draws from something else than the generator")
    known = inspect.signature(network.draw).parameters.values()
    without = [p.name for p in known if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    case.check(not without, f"draw needs {without}: give such settings a default")

    def drawn(network: Any, ambient: int = 0) -> Tensor:
        new: Tensor = with_generator(network.draw, B, *labels, ambient=ambient)
        check_drawn(new, codes, spec.codes)
        return new

    once = drawn(network)
    case.check(
        torch.equal(once, drawn(network, 1)), "it draws from something else than the generator"
    )
    other = built(build, part.untrained(), 1)
    other.load_state_dict(saved_and_loaded(network.state_dict()))
    case.check(torch.equal(once, drawn(other.eval())), "saved and loaded it draws something else")
