"""The forward pass: every network of a recipe, run once, gives a `Step`.

Precision, compiling, labels and `diff_augment` are dealt with here and nowhere else in training.

Letters: B images, C channels, H x W pixels, Z the latent shape, F kinds of fakes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from vgx import rng
from vgx.data.batches import Batch
from vgx.engine.build import NETWORKS, at_least_float32, label_inputs, sigmoid
from vgx.engine.surroundings import untouched
from vgx.errors import Notice
from vgx.parts.kinds import Indexed
from vgx.recipe.model import Recipe
from vgx.rng import Streams
from vgx.step import Posterior, Score, Step


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
        self.augment = [part.build(recipe.image) for part in recipe.augment]
        self.diff_augment = [part.build(recipe.image) for part in recipe.diff_augment]
        self.bf16 = recipe.train.precision == "bf16"  # not for `auto`: see Engine.configure
        self.compiled: dict[str, Callable[..., Any]] = {}  # called instead of the networks
        self.dropout = False  # whether the discriminator drew dropout masks in the last pass
        # Logits of real and fake images in the last pass, to be read when a step is logged.
        self.logits: tuple[Tensor, Tensor] | None = None
        # Indices of the codebook in the last pass, likewise; without a codebook there are none.
        self.indices: Tensor | None = None

    def __call__(
        self, batch: Batch, number: int, streams: Streams, *, train_generator: bool = True
    ) -> Step:
        """Run every network once on a minibatch, and return what a loss may read.

        Random numbers come from `streams`. Without `train_generator` no gradient leads to the
        generator.
        """
        real = self.augmented(batch.images, streams)  # [B, C, H, W]
        z = torch.randn(
            (len(real), *self.recipe.latent.shape),
            generator=streams("prior"), device=self.device, dtype=self.dtype,
        )  # [B, *Z]  # fmt: skip
        outputs: dict[str, Any] = {}
        with self.autocast(), torch.set_grad_enabled(train_generator):
            if "prior" in self.recipe.train.fakes or "encoder" not in self.networks:
                outputs["prior"] = sigmoid(self.decode(z, batch.labels))  # [B, C, H, W]
            if "encoder" in self.networks:
                outputs["posterior"] = posterior = self.encode(real)
                if isinstance(posterior, Indexed):
                    self.indices = posterior.indices.detach()
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
        return self.scored(step, streams) if "discriminator" in self.networks else step

    def augmented(self, images: Tensor, streams: Streams) -> Tensor:
        """[B, C, H, W]  Images after the recipe's augmentations."""
        images, generator = images.to(self.dtype), streams("augmentation")
        with torch.no_grad(), record_function("vgx: augmentation"):
            for part, augment in zip(self.recipe.augment, self.augment, strict=True):
                with untouched(part, {"its input": images}):
                    images = augment(images, generator)  # [B, C, H, W]
        return images

    def scored(self, step: Step, streams: Streams) -> Step:
        """Return the step with the discriminator's scores of its real and fake images."""
        before = rng.global_state(self.device)
        with self.autocast():
            real_score = self.score(step.real, step.labels, streams, "real", compiled=True)
            fake_score = self.score(step.fake, step.labels, streams, "fake", compiled=True)
        # Dropout draws from the global generator.
        self.dropout = not torch.equal(before, rng.global_state(self.device))
        self.logits = real_score.logits.detach(), fake_score.logits.detach()
        score = partial(self.score, labels=step.labels, streams=streams)
        return step.but(real_score=real_score, fake_score=fake_score, discriminator=score)

    def with_other_dropout(self, step: Step, streams: Streams) -> Step:
        """Return the step with scores under other dropout masks, for the discriminator's losses.

        The fake images are detached from the generator. Without dropout the step stays the same.
        """
        if not self.dropout:
            return step
        detached = {name: getattr(step, name).detach() for name in step.fakes}
        again = self.scored(step.but(**detached), streams)
        return step.but(real_score=again.real_score, fake_score=again.fake_score)

    def encode(self, images: Tensor) -> Posterior:
        """Return the encoder's posterior over [B, *Z] of images [B, C, H, W]."""
        with record_function("vgx: encode"):
            posterior: Posterior = self._call("encoder", images)
        return posterior

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, C, H, W]  The decoder's logits of latents [B, *Z], in float32 at least."""
        with record_function("vgx: decode"):
            logits = self._call("decoder", z, *label_inputs(self.recipe.decoder, labels))
        return at_least_float32(logits)

    def score(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        streams: Streams = Streams(0),  # noqa: B008 - a frozen value
        stream: str = "penalty",
        *,
        compiled: bool = False,
    ) -> Score:
        """Return the discriminator's score of images [F*B, C, H, W], logits in float32 at least.

        The labels [B] are repeated F times. Compiled networks have no second derivatives, which
        penalties need.
        """
        generator = streams(f"augmentation of the {stream}")
        for part, augment in zip(self.recipe.diff_augment, self.diff_augment, strict=True):
            with untouched(part, {"its input": images}):
                images = augment(images, generator)
        if labels is not None:
            labels = labels.repeat(len(images) // len(labels))  # [F*B]
        further = label_inputs(self.recipe.discriminator, labels)
        with record_function(f"vgx: score {stream}"):
            score: Score = self._call("discriminator", images, *further, compiled=compiled)
        return Score(at_least_float32(score.logits), score.features)

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
        for name in NETWORKS:
            if name in self.networks:
                self.compiled[name] = self._compiled(name)

    def _compiled(self, name: str) -> Callable[..., Any]:
        from torch._dynamo.exc import TorchDynamoException

        network = self.networks[name]
        compiled = torch.compile(network, dynamic=False)

        def call(*inputs: Tensor) -> Any:
            try:
                with warnings.catch_warnings():  # PyTorch reads attributes that it warns about
                    warnings.filterwarnings("ignore", "The .grad attribute")
                    return compiled(*inputs)
            except TorchDynamoException as error:
                first = str(error).partition("\n")[0]
                warnings.warn(
                    f"the {name} cannot be compiled, so it is not: {first}", Notice, stacklevel=2
                )
                del self.compiled[name]
                return network(*inputs)

        return call

    def _call(self, name: str, inputs: Tensor, *further: Tensor, compiled: bool = True) -> Any:
        """Call a network, or what it was compiled to."""
        network = self.compiled.get(name) if compiled else None
        with untouched(getattr(self.recipe, name), {"its input": inputs}):
            return (network or self.networks[name])(inputs, *further)
