"""The contract of samplers.

Letters: Z the latent shape, K stored latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vgx import rng
from vgx.check.attempt import read_only, same_tensors
from vgx.parts.contract import check_captions, check_decoded, check_tensor
from vgx.parts.kinds import Decodes, Fitted, OfClass
from vgx.sampling.draw import built_sampler, decode
from vgx.sampling.model import Model
from vgx.testing.case import ROUNDING, Case, saved_and_loaded, unchanged, with_generator
from vgx.testing.data import check_source
from vgx.testing.model import small_model


def check_sampler(case: Case) -> None:
    """Check the latents that a sampler draws, what it learns, and the images it may name.

    One that uses the model is given a small one, or that of the case.
    """
    shape, part = case.latent.shape, case.part
    codes = torch.randn((64, *shape), generator=rng.generator(0, "testing codes"))  # [K, *Z]
    model = replace(case.model or small_model(case.image, case.latent), codes=codes)
    with read_only(part, model.networks):
        _check_drawing(case, lambda: built_sampler(part, model), model)
    if (source := part.pictures(case.image)) is not None:
        check_source(case, source)


def _check_drawing(case: Case, build: Callable[[], Any], model: Model) -> None:
    """Check the latents that it draws, and what it learns from the codes [K, *Z] of a model."""
    shape, sampler, codes = case.latent.shape, build(), model.codes
    complete = getattr(sampler, "fit", None) is None or isinstance(sampler, Fitted)
    case.check(complete, "it has fit, but not state_dict and load_state_dict: fit is never called")
    if isinstance(sampler, Fitted):
        unchanged("codes", codes, lambda: sampler.fit(codes))
        again, loaded = build(), build()
        with rng.ambient(1, "testing"):
            again.fit(codes)
        same = same_tensors(sampler.state_dict(), again.state_dict())
        case.check(same, "fitted twice to the same codes it learns something else")
        loaded.load_state_dict(saved_and_loaded(sampler.state_dict()))
        ours, theirs = (with_generator(each.draw, 5, codes) for each in (sampler, loaded))
        case.check(torch.equal(ours, theirs), "saved and loaded it draws something else")
    z = unchanged("codes", codes, lambda: with_generator(sampler.draw, 5, codes))
    check_tensor("its latents", z, (5, *shape))
    case.check(z.dtype == codes.dtype, f"it makes {z.dtype} latents from {codes.dtype} codes")
    again = with_generator(sampler.draw, 5, codes, ambient=1)
    case.check(torch.equal(z, again), "it draws from something else than the generator")
    for n in (2, 100):
        same = torch.equal(z[:2], with_generator(sampler.draw, n, codes)[:2])
        case.check(same, f"its latent i depends on how many are drawn: 5 or {n}")
    if isinstance(sampler, OfClass) and case.image.classes:
        of_class = with_generator(sampler.draw_class, 0, 2, codes)
        check_tensor("its latents of a class", of_class, (2, *shape))
    _check_decoding(case, sampler, model, z)
    _check_rows(case, build, codes)


def _check_decoding(case: Case, sampler: Any, model: Model, z: Tensor) -> None:
    """Check the images of latents [n, *Z], where a sampler decodes by itself."""
    if not isinstance(sampler, Decodes):
        return
    images = unchanged("its latents", z, lambda: decode(model, sampler, z, None))
    check_decoded(images, (len(z), *case.image.shape))
    with rng.ambient(1, "testing"):
        again = decode(model, sampler, z, None)
    case.check(torch.equal(images, again), "it decodes the same latents in another way")
    few = decode(model, sampler, z[:2], None)
    near = torch.allclose(few, images[:2], atol=ROUNDING)
    case.check(near, "an image that it decodes depends on the other latents")


def _check_rows(case: Case, build: Callable[[], Any], codes: Tensor) -> None:
    """Check `row_length`, `least_codes`, `for_kl` and `captions`."""
    part, shape = case.part, case.latent.shape
    row, least = part.row_length, part.least_codes
    case.check(row is None or row > 0, f"its row_length is {row}; it must be None or above 0")
    case.check(least >= 0, f"its least_codes is {least}; it must not be negative")
    kl = torch.rand(shape, generator=rng.generator(0, "testing kl"))  # [*Z]
    ordered = unchanged("the KL", kl, lambda: part.for_kl(kl))
    for sampler, known in ((part, None), (ordered, kl)):
        check_captions(sampler, codes, known)
    if least != 1 and not isinstance(build(), Fitted):
        few = codes[:least]
        try:
            with_generator(build().draw, 1, few)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it needs more
            case.check(False, f"its least_codes is {least}, but that number fails: {error!r}")
