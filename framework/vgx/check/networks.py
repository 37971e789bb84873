"""Augmentations, networks and the sampler on a few images: outputs, and whether they repeat.

Letters: B images, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import alike, call, contract, read_only, same_tensors
from vgx.check.audit import Finding
from vgx.data.batches import Batch, as_batch
from vgx.data.decode import guarded
from vgx.data.peek import peek
from vgx.engine.build import (
    build_network,
    encoder_inputs,
    evaluating,
    in_full_precision,
    label_inputs,
    untrained,
)
from vgx.engine.engine import Engine
from vgx.errors import DataError, RecipeError
from vgx.parts.base import BrokenError, Component
from vgx.parts.contract import (
    are_texts,
    check_captions,
    check_decoded,
    check_indices,
    check_mapped,
    check_posterior,
    check_score,
    check_tensor,
    out_of_range,
)
from vgx.parts.kinds import (
    Decodes,
    Discriminator,
    Encoder,
    Fitted,
    Labelled,
    Mapped,
    Named,
    OfClass,
    Quantising,
    Sampler,
    Source,
)
from vgx.sampling.draw import built_sampler, decode, draws_labels
from vgx.sampling.model import Model, current_model
from vgx.step import KnowsKl, Step

FITTED = 1000  # the most latents that a sampler is fitted to, because fitting takes long
# Relative. For another number of images, and for a network that was built anew, a GPU may choose
# another algorithm. A codebook rounds what little that changes, so no products are in TF32.
ROUNDING = 1e-2
IMAGES = 2  # number of images of a data set that are read twice


def try_source(dataset: Component, source: Source) -> None:
    """Read the first images of a data set twice, and the names of its classes.

    Raises `BrokenError` if the images change, or the names are none.
    """
    with guarded():
        for index in range(min(len(source), IMAGES)):
            try:
                pixels = [source[index].tobytes() for _ in range(2)]
            except Exception:  # noqa: BLE001, S112 - unreadable ones are reported when they are decoded
                continue
            if pixels[0] != pixels[1]:
                message = f"image {index} is another one the second time, so a run could not repeat"
                raise BrokenError(dataset, message)
        if isinstance(source, Named) and not are_texts(source.classes):
            raise BrokenError(dataset, "the `classes` of its source are no sequence of names")


def try_augmentations(engine: Engine, images: Tensor) -> Iterator[Finding]:
    """Augment images [B, C, H, W] twice with the same key."""
    images = images.to(engine.dtype)
    for field in ("augment", "diff_augment"):
        pairs = zip(getattr(engine.recipe, field), getattr(engine.forward, field), strict=True)
        for index, (part, augment) in enumerate(pairs):
            name, kept = f"{field}.{index}", images.clone()  # [B, C, H, W]
            augmented = call(part, augment, images, engine.streams()("check"))
            with contract(part):
                check_tensor("an augmented batch", augmented, tuple(kept.shape))
            if fault := out_of_range(augmented):
                raise BrokenError(part, fault)
            if not torch.equal(kept, images):
                yield Finding(f"contract:{name}", "it changes the images that it is given in place")
            with rng.ambient(1, "check again"):
                again = call(part, augment, kept, engine.streams()("check"))
            if not alike(augmented, again):
                yield _random(name, "the generator that it is given")
            images = augmented.detach()


def try_networks(engine: Engine, batch: Batch) -> Iterator[Finding]:
    """Run each network alone on B images or latents, as in a training and as in evaluation.

    Raises `BrokenError` for outputs that break the contract.
    """
    for name in engine.recipe.networks:
        network, inputs = engine.networks[name], inputs_of(engine, name, batch)
        kept = [each.clone() for each in inputs]  # [B, ...]
        outputs_of(engine, name, network, inputs, batch.labels)
        if not all(map(torch.equal, kept, inputs)):
            yield Finding(f"contract:{name}", "it changes its input in place")
        yield from _evaluated(engine, name, kept, batch.labels)


def inputs_of(engine: Engine, name: str, batch: Batch) -> list[Tensor]:
    """Return images [B, C, H, W], latents [B, *Z] or both: what a network takes."""
    shape = (len(batch), *engine.recipe.latent.shape)
    z = torch.randn(shape, generator=rng.generator(0, "check"))
    z = z.to(engine.device, engine.dtype)  # [B, *Z]
    images = batch.images.to(engine.dtype)
    if isinstance(part := engine.recipe.networks[name], Discriminator):
        return {"images": [images], "latents": [z], "pairs": [images, z]}[part.judges]
    return [z] if name == "decoder" else [images]


def outputs_of(
    engine: Engine, name: str, network: nn.Module, inputs: list[Tensor], labels: Tensor | None
) -> dict[str, Tensor]:
    """Return the tensors that a network gives. Raises `BrokenError` when it breaks its contract."""
    recipe, part = engine.recipe, engine.recipe.networks[name]
    count = len(inputs[0])
    few = None if labels is None else labels[:count]
    further: tuple[Any, ...] = label_inputs(part, few)
    if isinstance(part, Encoder):
        further = encoder_inputs(part, few, engine.networks["decoder"])
    given: Any = call(part, network, *inputs, *further)
    image, latent = (count, *recipe.image.shape), (count, *recipe.latent.shape)
    with contract(part):
        if name == "encoder":
            check_posterior(given, latent)
            if isinstance(network, Quantising) and not network.training:
                check_indices(network, given, recipe.latent.shape)
            sample = call(part, given.sample, engine.streams()("check"))
            check_tensor("the posterior's sample", sample, latent)
            return {"mean": given.mean, "sample": sample}
        if name == "decoder":
            check_tensor("the logits", given, image)
            if isinstance(network, Mapped) and not network.training:
                check_mapped(network, [*inputs, *further], given)
            return {"logits": given}
        check_score(given, count)
        return {"logits": given.logits}


def _evaluated(
    engine: Engine, name: str, inputs: list[Tensor], labels: Tensor | None
) -> Iterator[Finding]:
    """Compare outputs in evaluation mode: twice, on one image, and of a network built anew."""

    def outputs(network: nn.Module, ambient: int, few: int | None = None) -> dict[str, Tensor]:
        first = [each[:few] for each in inputs]
        networks = [network, *engine.networks.values()]
        exact = in_full_precision()
        with torch.no_grad(), evaluating(networks), exact, rng.ambient(ambient, "check"):
            return outputs_of(engine, name, network, first, labels)

    network = engine.networks[name]
    once, again = outputs(network, 0), outputs(network, 1)
    if not all(alike(once[key], again[key]) for key in once):
        source = "the generator that sample() is given" if name == "encoder" else "its input"
        yield _random(name, f"{source}, in evaluation mode")
        return
    few, key = outputs(network, 0, 1), next(iter(once))
    if name not in engine.recipe.judges and not alike(few[key], once[key][:1], ROUNDING):
        message = f"in evaluation mode its {key} for an image depends on the others in its batch"
        yield Finding(f"contract:{name}", message)
    yield from _rebuilt(
        engine, name, lambda other: alike(outputs(other, 0)[key], once[key], ROUNDING)
    )


def _rebuilt(
    engine: Engine, name: str, same_output: Callable[[nn.Module], bool]
) -> Iterator[Finding]:
    """Build a network a second time and load its state, as a resumed run does."""
    recipe, network = engine.recipe, engine.networks[name]
    part = recipe.networks[name]

    def build() -> nn.Module:
        other = build_network(untrained(recipe), name)
        assert other is not None  # the recipe has this network
        return other.to(engine.device, engine.dtype)

    other = build()
    first, own = dict(other.named_parameters()), dict(network.named_parameters())
    # A trained or pretrained network has other weights, too: then a third one decides.
    if not same_tensors(first, own) and not same_tensors(first, dict(build().named_parameters())):
        message = "built twice it has other first weights: draw them from torch's generator alone"
        yield Finding(f"random:{name}", message)
    call(part, other.load_state_dict, network.state_dict())
    if not same_output(other):
        message = "built anew and loaded from a checkpoint it gives another output"
        yield Finding(f"contract:{name}", message)


def mixes_images(engine: Engine, name: str, batch: Batch) -> bool:
    """Return whether a network's output for an image depends on the others of its minibatch.

    It is measured in training mode: the gradient of the output for image 0 by the other images.
    """
    inputs = [each.clone().requires_grad_() for each in inputs_of(engine, name, batch)]  # [B, ...]
    outputs = outputs_of(engine, name, engine.networks[name], inputs, batch.labels)
    first = next(iter(outputs.values()))[0].sum()
    if not first.requires_grad:
        return False
    gradients = torch.autograd.grad(first, inputs, allow_unused=True)
    return any(gradient is not None and bool(gradient[1:].any()) for gradient in gradients)


def _random(name: str, source: str) -> Finding:
    message = f"the same images and the same key give something else: draw from {source} alone"
    return Finding(f"random:{name}", message)


# --- the sampler ---------------------------------------------------------------------------------


def try_sampler(engine: Engine, step: Step) -> Iterator[Finding]:
    """Draw a few latents, so that a sampler does not fail after the training.

    It draws from random latents [K, *Z], as many as the run will have stored when it first draws
    to be measured, or at its end; a fitted sampler gets at most 1,000 if these are enough for it,
    because fitting takes long. The KL that it is given is that of the step.
    """
    recipe, part = engine.recipe, engine.recipe.sampler
    source = call(part, part.pictures, recipe.image)
    measured = any(not metric.pairs for metric in recipe.eval.metrics) and recipe.eval.every
    first = min(engine.steps, measured or engine.steps)
    stored, batch = engine.latents.written, recipe.train.batch  # a fork has some already
    last = len(source) if source else min(len(engine.latents.ring), stored + engine.steps * batch)
    count = min(last, max(stored, first * batch))
    shape, generator = recipe.latent.shape, rng.generator(0, "check")
    different = torch.randn(min(count, FITTED), *shape, generator=generator)
    codes = different[torch.arange(count) % len(different)]  # [K, *Z]
    model = replace(current_model(engine, 0), codes=codes.to(engine.device))
    with read_only(part, model.networks):
        if source is not None:
            _try_own_images(part, source, model)
        try:
            yield from _try_drawing(engine, model, codes, different)
        except RecipeError as error:
            if count == last:
                raise
            at = f"at the first evaluation, when {count:,} latents are stored"
            more = f"a larger eval.every than {first} gives more"
            raise RecipeError(f"{error} ({at}; {more})") from error
        with contract(part):
            check_captions(part, codes, None)
            if step.has("posterior") and isinstance(step.posterior, KnowsKl):
                kl = step.posterior.kl().detach().float().mean(0).cpu()  # [*Z]
                knowing = call(part, part.for_kl, kl)
                check_captions(knowing, codes, kl)
                call(part, built_sampler, knowing, model)


def _try_own_images(part: Sampler, source: Source, model: Model) -> None:
    """Read and encode the first images that a sampler opens."""
    try_source(part, source)
    recipe = model.recipe
    known = recipe.takes_labels and isinstance(source, Labelled)
    image = recipe.image if known else replace(recipe.image, classes=0)
    try:
        few = as_batch(peek(source, image, IMAGES, skip_bad=True), IMAGES, model.codes.device)
        # Any label does: that of a class can be given when samples are drawn.
        model.encode(few.images, torch.zeros(len(few), dtype=torch.long))
    except (DataError, RecipeError) as error:
        raise type(error)(f"sampler {part.type}: its own images: {error}") from error


def _try_fit(part: Sampler, sampler: Any, codes: Tensor, different: Tensor) -> None:
    if isinstance(sampler, Fitted):
        try:
            call(part, sampler.fit, different)
        except RecipeError:  # too few for it, perhaps
            call(part, sampler.fit, codes)


def _try_drawing(
    engine: Engine, model: Model, codes: Tensor, different: Tensor
) -> Iterator[Finding]:
    """Draw from latents [K, *Z]; a fitted sampler is fitted to those that are `different`."""
    recipe, part = engine.recipe, engine.recipe.sampler
    sampler: Any = call(part, built_sampler, part, model)
    if not callable(getattr(sampler, "draw", None)):
        given = type(sampler).__name__
        raise BrokenError(part, f"its build() gives a {given} without draw(n, codes, generator)")
    _try_fit(part, sampler, codes, different)

    def drawn(drawer: Any, n: int, ambient: int = 0) -> Tensor:
        with rng.ambient(ambient, "check"):
            z: Tensor = call(part, drawer.draw, n, codes, rng.generator(0, "check"))
        with contract(part):
            check_tensor("the latents", z, (n, *recipe.latent.shape))
        return z

    z = drawn(sampler, 5)  # [5, *Z]
    if not alike(z, drawn(sampler, 5, 1)):
        yield _random("sampler", "the generator that draw() is given")
    elif not alike(z[:2], drawn(sampler, 2)):
        yield Finding("contract:sampler", "its latent i depends on how many are drawn: 5 or 2")
    if isinstance(sampler, OfClass) and draws_labels(recipe):
        few = codes[: part.least_codes]  # there may be no more of a class
        with rng.ambient(0, "check"), contract(part):
            of_class = call(part, sampler.draw_class, 0, 2, few, rng.generator(0, "check"))
            check_tensor("the latents of a class", of_class, (2, *recipe.latent.shape))
    if isinstance(sampler, Decodes):
        with rng.ambient(0, "check"), contract(part):
            images = call(part, decode, model, sampler, z, None)
            check_decoded(images, (len(z), *recipe.image.shape))
    if isinstance(sampler, Fitted):
        loaded = call(part, built_sampler, part, model)
        call(part, loaded.load_state_dict, call(part, sampler.state_dict))
        if not alike(z, drawn(loaded, 5)):
            yield Finding("contract:sampler", "saved and loaded it draws something else")
