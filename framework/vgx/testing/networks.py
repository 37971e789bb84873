"""The contracts of encoders, decoders and discriminators.

Letters: B images, Z the latent shape.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import same_tensors
from vgx.check.changing import faults_of_change
from vgx.distributed.norms import over_all_processes
from vgx.distributed.rows import replicated
from vgx.parts.contract import (
    check_indices,
    check_mapped,
    check_posterior,
    check_score,
    check_tensor,
)
from vgx.parts.kinds import Mapped, Quantising
from vgx.testing.case import (
    LAST,
    ROUNDING,
    B,
    Case,
    built,
    require,
    saved_and_loaded,
    tensors_of,
    unchanged,
    with_generator,
)
from vgx.testing.shared import Cut, check_shared, over_rows

# Checks what a network returns for so many inputs, and returns its tensors by name.
Check = Callable[[Any, int], dict[str, Tensor]]
ROWS = ("mean", "sample", "logits")  # which of these have a row for each image


def check_encoder(case: Case) -> None:
    """Check the network of an encoder and the posterior that it returns."""

    def check(posterior: Any, n: int) -> dict[str, Tensor]:
        check_posterior(posterior, (n, *case.latent.shape))
        sample = with_generator(posterior.sample)
        check_tensor("its posterior's sample", sample, (n, *case.latent.shape))
        same = torch.equal(sample, with_generator(posterior.sample, ambient=1))
        require(same, "its posterior's sample draws from something else than the generator")
        return {**tensors_of(posterior), "sample": sample}

    images = case.images()
    network, _ = _check_network(
        case, lambda part: part.build(case.image, case.latent), [images], check
    )
    if isinstance(network, Quantising):
        check_indices(network, network(images, *_further(case, B)), case.latent.shape)


def _further(case: Case, n: int) -> tuple[Any, ...]:
    """Return what a network takes beside its inputs: n labels, and the decoder."""
    further = (case.labels[:n],) if case.conditional else ()
    if not getattr(case.part, "uses_decoder", False):
        return further
    require(case.decoder, "it uses the decoder: give one, check_part(part, decoder=...)")
    decoder = built(lambda part: part.build(case.latent, case.image), case.decoder)
    return (*further, decoder.eval())


def check_decoder(case: Case) -> None:
    """Check the network of a decoder and the logits that it returns."""

    def check(logits: Any, n: int) -> dict[str, Tensor]:
        check_tensor("its logits", logits, (n, *case.image.shape))
        return {"logits": logits}

    z = torch.randn((B, *case.latent.shape), generator=rng.generator(0, "testing z"))  # [B, *Z]
    network, outputs = _check_network(
        case, lambda part: part.build(case.latent, case.image), [z], check
    )
    logits = outputs["logits"]
    squashed = 0 <= logits.min() <= logits.max() <= 1
    case.check(not squashed, "it gives images in [0, 1]: the engine applies the sigmoid")
    if isinstance(network, Mapped):
        check_mapped(network, [z, *_further(case, B)], logits)


def check_discriminator(case: Case) -> None:
    """Check the network of a discriminator and the score that it returns."""

    def check(score: Any, n: int) -> dict[str, Tensor]:
        check_score(score, n)
        return {"logits": score.logits}

    z = torch.randn((B, *case.latent.shape), generator=rng.generator(0, "testing z"))  # [B, *Z]
    judged = {"images": [case.images()], "latents": [z], "pairs": [case.images(), z]}
    inputs = judged[case.part.judges]
    _check_network(case, lambda part: part.build(case.image, case.latent), inputs, check)


def _check_network(
    case: Case, build: Callable[[Any], Any], inputs: list[Tensor], check: Check
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Check what every network must do; return it in evaluation mode, and its outputs."""

    def forward(network: Any, inputs: list[Tensor]) -> dict[str, Tensor]:
        return check(network(*inputs, *_further(case, len(inputs[0]))), len(inputs[0]))

    network = built(build, case.part)
    require(isinstance(network, nn.Module), "build does not give a torch.nn.Module")
    again = built(build, case.part).state_dict()
    same = same_tensors(network.state_dict(), again)
    case.check(same, "its first weights draw not only from torch")
    network.train()
    for each in inputs:
        unchanged("its input", each, lambda: forward(network, inputs))
    _check_gradients(case, network, inputs, forward)
    two = [each[:2] for each in inputs]
    forward(network, two)
    case.faults.extend(faults_of_change(case.part, network, LAST, case.step))
    copy.deepcopy(network)  # averaged weights start as a copy
    other = built(build, case.part.untrained(), 1)
    other.load_state_dict(saved_and_loaded(network.state_dict()))
    with torch.no_grad(), rng.ambient(1, "testing"):
        outputs, again = forward(network.eval(), inputs), forward(network, inputs)
        same = same_tensors(outputs, again)
        case.check(same, "in evaluation mode the same input gives another output")
        same = same_tensors(outputs, forward(other.eval(), inputs))
        case.check(same, "saved and loaded it gives another output")
        few = forward(network, two)
    for name in ("mean", "logits") if case.part.kind != "discriminator" else ():
        near = name not in few or torch.allclose(few[name], outputs[name][:2], atol=ROUNDING)
        case.check(near, f"in evaluation mode its {name} depends on the batch's other images")
    kinds = 2 if case.part.kind == "discriminator" and case.part.judges == "images" else 1

    def compute(cut: Cut) -> dict[str, Tensor]:
        with replicated():
            network, further = built(build, case.part).train(), _further(case, B)
        over_all_processes(network)
        own = [
            cut(torch.cat([each] * kinds)) if isinstance(each, Tensor) else each
            for each in (*inputs, *further)
        ]
        with rng.ambient(0, "testing"):
            outputs = check(network(*own), len(own[0]))
            return over_rows({name: outputs[name] for name in ROWS if name in outputs}, network)

    check_shared(case, B, compute)
    return network, outputs


def _check_gradients(
    case: Case,
    network: nn.Module,
    inputs: list[Tensor],
    forward: Callable[[Any, list[Tensor]], dict[str, Tensor]],
) -> None:
    """Check that a finite gradient reaches every weight, and the input unless it is an image."""
    inputs = [each.clone().requires_grad_() for each in inputs]
    tensors: dict[str, Tensor]
    tensors = {f"its {name}": p for name, p in network.named_parameters() if p.requires_grad}
    if case.part.kind != "encoder":
        names = ["its input", "its latents"]
        tensors |= dict(zip(names, inputs, strict=False))
    outputs = [tensor for tensor in forward(network, inputs).values() if tensor.requires_grad]
    require(outputs, "its output leads to no weight: is it computed in no_grad?")
    with rng.ambient(0, "testing"):
        sums = torch.stack([(tensor * torch.randn_like(tensor)).sum() for tensor in outputs])
    gradients = torch.autograd.grad(sums.sum(), [*tensors.values()], allow_unused=True)
    for name, gradient in zip(tensors, gradients, strict=True):
        case.check(gradient is not None, f"no gradient reaches {name}: freeze it or use it")
        finite = gradient is None or gradient.isfinite().all()
        case.check(finite, f"the gradient that reaches {name} is not finite")
