"""The forward pass: every network of a recipe, run once, gives a `Step`.

Precision, compiling, labels and `diff_augment` are dealt with here and nowhere else in training.

Letters: B images, C channels, H x W pixels, Z the latent shape, F kinds of fakes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cache, partial
from itertools import count
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.profiler import record_function

from vgx import rng
from vgx.data.batches import Batch
from vgx.distributed.rows import as_computed
from vgx.engine.build import at_least_float32, encoder_inputs, label_inputs, sigmoid
from vgx.engine.surroundings import untouched
from vgx.errors import Notice
from vgx.parts.kinds import Augmentation, Mapped, Observing, Timed
from vgx.recipe.model import Recipe
from vgx.rng import Streams
from vgx.step import AbsentError, Posterior, Score, Step


class Forward:
    """The forward pass of a recipe's networks."""

    def __init__(
        self,
        recipe: Recipe,
        networks: dict[str, nn.Module],
        steps: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Call these networks as the recipe says, in a training of so many steps."""
        self.recipe, self.networks, self.steps = recipe, networks, steps
        self.device, self.dtype = device, dtype
        self.parts = recipe.networks
        self.judges = {name: part for name, part in recipe.judges.items() if name in networks}
        self.augment = [self._built(part) for part in recipe.augment]
        self.diff_augment = [self._built(part) for part in recipe.diff_augment]
        named = (network for name, network in networks.items() if name in self.parts)
        built = (*named, *self.augment, *self.diff_augment)
        self.timed = [each for each in modules_in(built) if isinstance(each, Timed)]
        self.observed = any(isinstance(a, Observing) for a in self.augment + self.diff_augment)
        self.bf16 = recipe.train.precision == "bf16"  # not for `auto`: see Engine.configure
        self.compiled: dict[str, Callable[..., Any]] = {}  # called instead of the networks
        self.dropout = False  # whether a discriminator drew dropout masks in the last pass
        # Each discriminator's logits of what is real and fake, in the last pass whose scores were
        # not lazy, to be read when a step is logged.
        self.logits: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        batch: Batch,
        number: int,
        streams: Streams,
        *,
        train_generator: bool = True,
        lazy: bool = False,
    ) -> Step:
        """Run every network once on a minibatch, and return what a loss may read.

        Random numbers come from `streams`. Without `train_generator` no gradient leads to the
        generator. With `lazy` a discriminator is called when its score is read, if it ever is.
        """
        self.at(number)
        real = self.augmented(batch.images, streams)  # [B, C, H, W]
        z = torch.randn(
            (len(real), *self.recipe.latent.shape),
            generator=streams("prior"), device=self.device, dtype=self.dtype,
        )  # [B, *Z]  # fmt: skip
        calls = self.calls(batch.labels, streams, train_generator=train_generator)
        outputs: dict[str, Any] = {"prior_z": z, **calls}
        with self.autocast(), torch.set_grad_enabled(train_generator):
            if self.recipe.decodes_prior:
                outputs["prior"] = sigmoid(self.decode(z, batch.labels))  # [B, C, H, W]
            if "encoder" in self.networks:
                outputs["posterior"] = self.encode(real, batch.labels)
                z = outputs["posterior"].sample(streams("posterior"))  # [B, *Z]
                outputs["recon_logits"] = self.decode(z, batch.labels)  # [B, C, H, W]
                outputs["recon"] = sigmoid(outputs["recon_logits"])  # [B, C, H, W]
        step = Step(
            number=number,
            progress=number / self.steps,
            real=real,
            z=z,
            fakes=self.recipe.train.fakes,
            labels=batch.labels,
            rng=lambda stream: streams(f"loss {stream}"),
            **outputs,
        )
        return self.scored(step, streams, lazy=lazy and not self.observed) if self.judges else step

    # --- what changes with time ------------------------------------------------------------

    def _built(self, part: Augmentation) -> Callable[[Tensor, Generator], Tensor]:
        augment = part.build(self.recipe.image)
        if isinstance(augment, nn.Module):
            augment.to(self.device, self.dtype).requires_grad_(requires_grad=False)
        return augment

    def at(self, number: int) -> None:
        """Let networks and augmentations become what they are in a step."""
        with torch.no_grad():
            for each in self.timed:
                each.at(number, number / self.steps)

    def observe(self, step: Step) -> None:
        """Let augmentations see a step after its forward pass."""
        with torch.no_grad():
            for augment in (*self.augment, *self.diff_augment):
                if isinstance(augment, Observing):
                    augment.observe(step)

    @property
    def saved_augmentations(self) -> dict[str, nn.Module]:
        """The augmentations that are modules, by the names that checkpoints have for them."""
        built = {"augment": self.augment, "diff_augment": self.diff_augment}
        return {
            f"{field} {index} {getattr(self.recipe, field)[index].type}": augment
            for field, augmentations in built.items()
            for index, augment in enumerate(augmentations)
            if isinstance(augment, nn.Module)
        }

    def share_augmentations(self, other: Forward) -> None:
        """Use the augmentations of another pass, with what they keep, and change nothing of it."""
        self.augment, self.diff_augment = other.augment, other.diff_augment
        self.timed = []

    # --- one network at a time -------------------------------------------------------------

    def augmented(self, images: Tensor, streams: Streams) -> Tensor:
        """[B, C, H, W]  Images after the recipe's augmentations."""
        images, generator = images.to(self.dtype), streams("augmentation")
        with torch.no_grad(), record_function("vgx: augmentation"):
            for part, augment in zip(self.recipe.augment, self.augment, strict=True):
                with untouched(part, {"its input": images}):
                    images = augment(images, generator)  # [B, C, H, W]
        return images

    def scored(self, step: Step, streams: Streams, *, lazy: bool = False) -> Step:
        """Return the step with the score that each discriminator gives of what it judges.

        With `lazy` it is computed when it is first read.
        """
        before = rng.global_state(self.device)
        views: dict[str, dict[str, Any]] = {}
        for name, part in self.judges.items():
            judged = step.but(judges=part.judges)
            score = partial(self.score, network=name, labels=step.labels, streams=streams)
            real, fake = (cache(partial(self._scored, score, judged, k)) for k in ("real", "fake"))
            scores = {"real_score": real, "fake_score": fake, "discriminator": score}
            if not lazy:
                scores |= {"real_score": real(), "fake_score": fake()}
                self.logits[name] = real().logits.detach(), fake().logits.detach()
            views[name.partition(" ")[2]] = {"judges": part.judges, **scores}
        # Dropout draws from the global generator.
        self.dropout = not torch.equal(before, rng.global_state(self.device))
        if len(views) > 1:
            return step.but(views=tuple(views.items()))
        return step.but(**next(iter(views.values())))

    def _scored(self, score: Callable[..., Score], judged: Step, stream: str) -> Score:
        with self.autocast():
            return score(*getattr(judged, f"judged_{stream}"), stream=stream, compiled=True)

    def for_discriminator(self, step: Step, streams: Streams) -> Step:
        """Return the step for the discriminator's losses, when the generator's have used it.

        What they call of the networks gives no gradient. Where a discriminator has dropout, the
        scores are taken again with other masks, as in a pass of its own, of what is detached from
        the generator.
        """
        step = step.but(**self.calls(step.labels, streams, train_generator=False))
        if not self.dropout:
            return step
        computed = [name for name in ("recon", "prior", "z") if step.has(name)]
        detached = {name: getattr(step, name).detach() for name in computed}
        again = vars(self.scored(step.but(**detached), streams))
        return step.but(**{name: again[name] for name in ("views", "real_score", "fake_score")})

    def calls(
        self, labels: Tensor | None, streams: Streams, *, train_generator: bool
    ) -> dict[str, Callable[..., Any]]:
        """Return what losses call of a step: `encode`, `decode`, `decode_logits`, and so on.

        `labels` [B] are those of the step.
        """
        numbers = count()

        def call(function: Callable[..., Any], inputs: Tensor, own: Tensor | None = None) -> Any:
            if own is None and labels is not None:
                own = repeated(labels, len(inputs))  # [n*B]
            keyed = rng.ambient(streams.seed, "call of a loss", *streams.numbers, next(numbers))
            learns = train_generator and torch.is_grad_enabled()
            with keyed, self.autocast(), torch.set_grad_enabled(learns):
                return function(inputs, own)

        logits = partial(self.decode, compiled=False)

        def decode(z: Tensor, own: Tensor | None) -> Tensor:
            return sigmoid(logits(z, own))

        named: dict[str, Callable[..., Any]] = {"decode": decode, "decode_logits": logits}
        if "encoder" in self.networks:
            named["encode"] = partial(self.encode, compiled=False)
        if isinstance(self.networks["decoder"], Mapped):
            named["map"] = partial(logits, method="map")
            # The labels are in w already.
            named["decode_mapped"] = lambda w, _: sigmoid(logits(w, method="decode_mapped"))
        keyed = {name: partial(call, function) for name, function in named.items()}
        learning = self.parts if train_generator else self.judges
        return {**keyed, "parameters": partial(parameters_of, self.networks, learning)}

    def encode(
        self, images: Tensor, labels: Tensor | None = None, *, compiled: bool = True
    ) -> Posterior:
        """Return the encoder's posterior over [B, *Z] of images [B, C, H, W]."""
        further = encoder_inputs(self.recipe.encoder, labels, self.networks["decoder"])
        with record_function("vgx: encode"):
            posterior: Posterior = self._call("encoder", images, *further, compiled=compiled)
        return posterior

    def decode(
        self, z: Tensor, labels: Tensor | None = None, *, method: str = "", compiled: bool = True
    ) -> Tensor:
        """[B, C, H, W]  The decoder's logits of latents [B, *Z], in float32 at least.

        Or what a method of a decoder that is `Mapped` gives: w of z, or logits of w.
        """
        further = label_inputs(self.recipe.decoder, labels)
        with record_function("vgx: decode"):
            output = self._call("decoder", z, *further, method=method, compiled=compiled)
        return at_least_float32(output)

    def score(
        self,
        *judged: Tensor,
        network: str = "discriminator",
        labels: Tensor | None = None,
        streams: Streams = Streams(0),  # noqa: B008 - a frozen value
        stream: str = "penalty",
        compiled: bool = False,
    ) -> Score:
        """Return a discriminator's score of what it judges, logits in float32 at least.

        That is images [F*B, C, H, W], latents [B, *Z] or both. The labels [B] are repeated F times.
        Compiled networks have no second derivatives, which penalties need.
        """
        part = self.judges[network]
        if part.judges != "latents":
            judged = (self._diff_augmented(judged[0], streams, stream), *judged[1:])
        if labels is not None:
            labels = repeated(labels, len(judged[0]))  # [F*B]
        further = label_inputs(part, labels)
        with record_function(f"vgx: score {stream}"):
            score: Score = self._call(network, *judged, *further, compiled=compiled)
        return Score(at_least_float32(score.logits), score.features)

    def _diff_augmented(self, images: Tensor, streams: Streams, stream: str) -> Tensor:
        """[F*B, C, H, W]  Images after `diff_augment`."""
        generator = streams(f"augmentation of the {stream}")
        # In bfloat16, which has three digits, a place in an image would be wrong by a pixel.
        with torch.autocast(self.device.type, enabled=False):
            for part, augment in zip(self.recipe.diff_augment, self.diff_augment, strict=True):
                with untouched(part, {"its input": images}):
                    images = augment(images, generator)
        return images

    def autocast(self) -> torch.autocast:
        """Run the networks in bfloat16 inside the block, when that is chosen."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # --- compiling -------------------------------------------------------------------------

    def compile(self) -> None:
        """Compile the networks when they are next called.

        A network that cannot be compiled is called as it is, with a notice.
        """
        from torch._functorch import config

        # The gradient of one player must not use up what the other's gradient still needs.
        config.donated_buffer = False
        for name in self.parts:
            self.compiled[name] = _compiled(self, name)

    def _call(
        self, name: str, *inputs: Tensor | nn.Module, method: str = "", compiled: bool = True
    ) -> Any:
        """Call a network or a method of it, or what the network was compiled to."""
        network = (self.compiled.get(name) if compiled else None) or self.networks[name]
        given = {"its input": inputs[0], "its other input": inputs[-1]}
        tensors = {what: each for what, each in given.items() if isinstance(each, Tensor)}
        with untouched(self.parts[name], tensors):
            return (getattr(network, method) if method else network)(*inputs)


def repeated(labels: Tensor, count: int) -> Tensor:
    """[n*B]  Return the labels [B] of a step for so many images, in the same order again."""
    labels = as_computed(labels)
    return labels.repeat(count // len(labels))


def parameters_of(
    networks: dict[str, nn.Module], learning: Container[str], network: str
) -> dict[str, Tensor]:
    """Return the parameters of a network by name, without a gradient unless it is `learning`.

    "discriminator" is the only one of these. Raises `AbsentError` for another name.
    """
    names = [name for name in networks if network in (name, name.partition(" ")[0])]
    if len(names) != 1:
        has = f"one network of this name; it has {', '.join(networks)}"
        raise AbsentError(f"parameters({network!r})", has)
    own = networks[names[0]].named_parameters()
    return {name: each if names[0] in learning else each.detach() for name, each in own}


def _compiled(forward: Forward, name: str) -> Callable[..., Any]:
    """Return a network that is compiled when it is first called, if it can be."""
    from torch._dynamo.exc import TorchDynamoException

    network = forward.networks[name]
    compiled = torch.compile(network, dynamic=False)

    def call(*inputs: Tensor | nn.Module) -> Any:
        try:
            with warnings.catch_warnings():  # PyTorch reads attributes that it warns about
                warnings.filterwarnings("ignore", "The .grad attribute")
                return compiled(*inputs)
        except TorchDynamoException as error:
            first = str(error).partition("\n")[0]
            warnings.warn(
                f"the {name} cannot be compiled, so it is not: {first}", Notice, stacklevel=2
            )
            del forward.compiled[name]
            return network(*inputs)

    return call


def modules_in(built: Iterable[object]) -> Iterator[object]:
    """Go through what parts built, and through all modules inside of it."""
    for each in built:
        yield from each.modules() if isinstance(each, nn.Module) else [each]
