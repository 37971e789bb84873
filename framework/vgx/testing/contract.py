"""The contract of each kind of part as one check, for the tests of plugin authors.

    from vgx.testing import check_part

    def test_the_contract():
        check_part(Huber(delta=0.5))

The built-in parts are held to it too.

Letters: B images, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vgx import rng
from vgx.errors import RecipeError
from vgx.parts.base import Component, components_in, validate
from vgx.parts.contract import ContractError, documentation_faults, with_tensors
from vgx.parts.kinds import Decoder, Metric
from vgx.parts.registry import Plugin, Registry
from vgx.parts.values import STRICT, ImageSpec, LatentSpec
from vgx.recipe import schema, yaml
from vgx.sampling.model import Model
from vgx.step import Gaussian, Score, Step
from vgx.testing.case import B, Case, Networks
from vgx.testing.data import check_augmentation, check_dataset
from vgx.testing.losses import check_loss
from vgx.testing.metrics import check_features, check_metric, check_tracker
from vgx.testing.networks import check_decoder, check_discriminator, check_encoder
from vgx.testing.priors import check_prior
from vgx.testing.samplers import check_sampler

CHECKS: dict[str, Callable[[Case], None]] = {
    "dataset": check_dataset,
    "augmentation": check_augmentation,
    "encoder": check_encoder,
    "decoder": check_decoder,
    "discriminator": check_discriminator,
    "loss": check_loss,
    "prior": check_prior,
    "sampler": check_sampler,
    "features": check_features,
    "metric": check_metric,
    "tracker": check_tracker,
}


def check_part(
    part: Component,
    *,
    image: ImageSpec | None = None,
    latent: LatentSpec | None = None,
    step: Step | None = None,
    decoder: Decoder | None = None,
    model: Model | None = None,
) -> None:
    """Hold a part to the contract of its kind.

    By default images are 16x16 RGB (with 3 labels for a conditional part), latents are 8 numbers,
    a loss is evaluated on `full_step`, and a sampler that uses the model is given `small_model`;
    pass others to a part that needs them. An encoder that uses the decoder needs its `decoder`.
    Unless `step` or `model` is given, a part that passes for square images is also checked with
    images that are twice as wide, and with a spatial latent that is. There it may raise
    `RecipeError`, and a metric may say why not: that is how a part declares that its images must be
    square. Raises `AssertionError` that names the part and lists all that is wrong.
    """
    __tracebackhide__ = True
    image = image or ImageSpec(16, classes=3 if getattr(part, "conditional", False) else 0)
    latent = latent or LatentSpec((8,))
    case = Case(part, image, latent, step or full_step(image, latent), decoder, model)
    cause = _faults(case, _check_documentation, _check_recipe, CHECKS[part.kind])
    if not case.faults and step is None and model is None and image.height == image.width:
        cause = _check_wide(case)
    if case.faults:
        name = f"{part.kind} {part.type!r} ({type(part).__name__})"
        lines = "\n".join(f"- {fault}" for fault in dict.fromkeys(case.faults))
        raise AssertionError(f"{name} breaks its contract:\n{lines}") from cause


def _faults(case: Case, *checks: Callable[[Case], None]) -> Exception | None:
    """Run checks: note faults in the case, and return the last error that the part raised."""
    cause = None
    for check in checks:
        try:
            check(case)
        except ContractError as wrong:
            case.faults.append(str(wrong))
        except Exception as error:  # noqa: BLE001 - whatever a part raises is its fault
            case.faults.append(f"it raises {type(error).__name__}: {error}")
            cause = error
    return cause


def _check_wide(case: Case) -> Exception | None:
    """Check a part with images that are twice as wide, unless it refuses them."""

    def mirrored(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.flip(3)], 3) if tensor.dim() == 4 else tensor

    height, latent = case.image.height, case.latent.shape
    wide = Case(
        part=case.part,
        image=replace(case.image, size=(height, 2 * height)),
        latent=LatentSpec((*latent[:-1], 2 * latent[-1])) if len(latent) == 3 else case.latent,
        step=with_tensors(case.step, mirrored),
        decoder=case.decoder,
    )
    calls = Networks(wide.image, wide.latent).calls()
    wide = replace(wide, step=wide.step.but(**calls))
    part = case.part
    if isinstance(part, Metric) and part.why_not(wide.image, B, B):
        return None
    cause = _faults(wide, CHECKS[part.kind])
    if not isinstance(cause, RecipeError):
        what = f"with images of {height} x {2 * height} pixels (height x width)"
        advice = "use image.height and image.width, or raise vgx.RecipeError for such images"
        case.faults.extend(f"{what}: {fault}; {advice}" for fault in wide.faults)
    return cause


def full_step(image: ImageSpec | None = None, latent: LatentSpec | None = None) -> Step:
    """Return a step of 8 images in which nothing is absent, for tests of losses."""
    image, latent = image or ImageSpec(16), latent or LatentSpec((8,))
    generator, size = rng.generator(0, "testing"), image.shape

    calls: dict[str, Any] = Networks(image, latent).calls()

    def leaf(*shape: int, n: int = B) -> Tensor:
        return torch.randn((n, *shape), generator=generator).requires_grad_()

    def discriminator(images: Tensor) -> Score:
        features = (images * weight).tanh()  # [B, C, H, W]
        return Score(features.mean((1, 2, 3)).view(-1, 1), (features,))

    weight = leaf(image.channels, 1, 1, n=1)
    posterior = Gaussian(leaf(*latent.shape) + 1, leaf(*latent.shape))  # apart from the prior
    logits, prior = leaf(*size), leaf(*size)
    return Step(
        number=5,
        progress=0.5,
        real=torch.rand((B, *size), generator=generator),
        posterior=posterior,
        z=posterior.sample(generator),
        prior_z=torch.randn((B, *latent.shape), generator=generator),
        **calls,
        recon=logits.sigmoid(),
        recon_logits=logits,
        prior=prior.sigmoid(),
        real_score=Score(leaf(1, 2, 2), (leaf(5, 4, 4), leaf(6, 2, 2))),
        fake_score=Score(leaf(1, 2, 2, n=2 * B), (leaf(5, 4, 4, n=2 * B), leaf(6, 2, 2, n=2 * B))),
        discriminator=discriminator,
        fakes=("recon", "prior"),
        labels=torch.arange(B) % image.classes if image.classes else None,
    )


def _check_documentation(case: Case) -> None:
    cls = type(case.part)
    case.check(cls.type, 'it has no name for recipes: class X(vgx.Kind, type="kebab-name")')
    case.faults.extend(documentation_faults(case.part))
    strict = all(cls.model_config.get(key) == value for key, value in STRICT.items())
    case.check(strict, "its model_config is not that of parts, which are strict and frozen")
    case.check(isinstance(case.part.note(case.image), str), "note() gives no string")
    case.check(type(case.part.untrained()) is cls, "untrained() gives another part")


def _check_recipe(case: Case) -> None:
    """Write the part as YAML, read it, and describe it in a schema."""
    classes = tuple({type(part): None for part in components_in(case.part)})
    registry = Registry((Plugin("tested", "0", "tested", classes),))
    text = yaml.write({"part": case.part.model_dump(mode="json")})
    written = yaml.read(text, "recipe.yaml")[0].plain()["part"]
    del written["type"]
    again = validate(type(case.part), written, registry)
    case.check(again == case.part, f"written to a recipe and read again it is {again!r}")
    json.dumps(schema.recipe_schema(registry))
    schema.fields(type(case.part))
