"""What one training step computed: the values that losses and metrics read.

Letters: B images, C channels, H x W pixels, Z the latent shape, F kinds of fakes, h x w the grid of
patches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

from vgx.errors import RecipeError

if TYPE_CHECKING:
    from torch import Generator, Tensor


Judges = Literal["images", "latents", "pairs"]  # what a discriminator judges


class Posterior(Protocol):
    """A distribution over the latents of each image, which an encoder gives."""

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The expected latents."""
        ...

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  One sample for each image, differentiable where the family allows it."""
        ...


@runtime_checkable
class KnowsKl(Protocol):
    """A posterior that computes its KL from N(0, I); `Gaussian` is one."""

    def kl(self) -> Tensor:
        """[B, *Z]  The KL of each dimension in nats; the sum is that of the whole.

        Where it depends on other latents, as in a hierarchy, these are those of the last `sample`.
        """
        ...


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian with diagonal covariance (Kingma and Welling 2014).

    `logvar` is clamped to [-30, 20] as in latent diffusion: its exponential stays finite.
    """

    mu: Tensor  # [B, *Z]
    logvar: Tensor  # [B, *Z]

    def __post_init__(self) -> None:
        """Clamp once, so that sampling and every loss see the same variance."""
        object.__setattr__(self, "logvar", self.logvar.clamp(-30.0, 20.0))

    @property
    def mean(self) -> Tensor:
        """[B, *Z]  The same as `mu`."""
        return self.mu

    def sample(self, generator: Generator) -> Tensor:
        """[B, *Z]  mu + exp(logvar / 2) * eps, the reparametrised sample."""
        eps = self.mu.new_empty(self.mu.shape).normal_(generator=generator)  # [B, *Z]
        return self.mu + (self.logvar / 2).exp() * eps

    def kl(self) -> Tensor:
        """[B, *Z]  The KL from N(0, 1) of each dimension, in nats."""
        return (self.mu.square() + self.logvar.exp() - 1 - self.logvar) / 2


@dataclass(frozen=True, eq=False)
class Score:
    """What a discriminator gives for a batch of what it judges; high logits mean real."""

    logits: Tensor  # [B, 1, h, w] or [B, 1]
    features: tuple[Tensor, ...] = ()  # activations of inner layers, shallow first


class AbsentError(RecipeError):
    """A loss read a value of the step that the recipe's networks do not give."""

    def __init__(self, name: str, needs: str) -> None:
        """Keep the name of the value, and what must be in the recipe to have it."""
        super().__init__(f"step.{name} is absent: the recipe needs {needs}")
        self.name, self.needs = name, needs


T = TypeVar("T")
JUDGE = "a discriminator"
MAPPED = "a decoder with a mapping network"


class Given(Generic[T]):
    """A field of a step that needs something in the recipe; reading it without that is an error."""

    def __init__(self, needs: str, *, lazy: bool = False) -> None:
        """Remember what the recipe needs, for the message.

        With `lazy` the field may be given as a function, which computes the value when it is read.
        """
        self.needs, self.lazy = needs, lazy

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the name of the field."""
        self.name = name

    def __get__(self, step: object | None, owner: type) -> T:
        """Return the value. Raises `AbsentError` when the recipe does not give it."""
        if step is None:
            return None  # type: ignore[return-value]  # the default of the dataclass field
        value: T | None = vars(step)[self.name]
        if value is None:
            choice = _choice(step) if self.needs == JUDGE else ""
            raise AbsentError(self.name, choice or self.needs)
        if self.lazy and callable(value):
            value = value()
        return value

    def __set__(self, step: object, value: T | None) -> None:
        """Take the value once, when the step is made."""
        vars(step)[self.name] = value


def _choice(step: Any) -> str:
    """Return what a loss must say when there are several discriminators, or an empty text."""
    names = ", ".join(name for name, _ in step.views)
    return f"'discriminator: NAME' in this loss, with one of: {names}" if names else ""


def _keyed_by_stream(stream: str) -> Generator:
    from vgx import rng

    return rng.generator(0, stream)


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """Everything that a loss may read.

    Reading a value that the recipe's networks do not give raises `AbsentError`, which names what
    the recipe needs: `step.recon` of a GAN needs an encoder. A loss that works with and without a
    value asks `step.has("recon")` first.

    A loss that draws random numbers takes its generator from `rng`: `step.rng("noise")` is seeded
    by the run's seed, the step and this name, so a resumed run draws the same numbers.

    A loss that needs more of the networks than the step has computed calls `encode`, `decode` or
    `decode_logits`: further passes of the networks as they are in this step, in training mode and
    not compiled. They take labels [B] as a last argument; by default these are the step's labels,
    repeated where there are more inputs than labels. The n-th call of a step draws its dropout by
    the step and n. In the discriminator's term their values have no gradient. The same holds for
    the two halves of a decoder with a mapping network, `map` and `decode_mapped`.

    A loss on the weights of a network calls `parameters("decoder")`: the parameters by the names
    that they have in its module, to be read and never changed. The term of a player trains its own
    networks alone; in the discriminator's term those of encoder and decoder have no gradient.

    With several discriminators each loss sees the step of the discriminator that it names.
    """

    number: int  # steps done before this one
    progress: float  # 0 at the start of the training, 1 at its end
    real: Tensor  # [B, C, H, W]  images of the data set in [0, 1], augmented
    z: Tensor  # [B, *Z]  a posterior sample; without an encoder, a sample of the prior
    prior_z: Given[Tensor] = Given("a training")  # [B, *Z]  from N(0, I); `prior` is decoded of it
    posterior: Given[Posterior] = Given("an encoder")  # .mu, .logvar [B, *Z] for a Gaussian
    recon: Given[Tensor] = Given("an encoder")  # [B, C, H, W]  decoded posterior sample, [0, 1]
    recon_logits: Given[Tensor] = Given("an encoder")  # [B, C, H, W]  recon before the sigmoid
    prior: Given[Tensor] = Given("'prior' in train.fakes")  # [B, C, H, W]  decoded N(0, I), [0, 1]
    encode: Given[Callable[..., Posterior]] = Given("an encoder")  # of images [.., C, H, W]
    decode: Given[Callable[..., Tensor]] = Given("a training")  # of z: [.., C, H, W] in [0, 1]
    decode_logits: Given[Callable[..., Tensor]] = Given("a training")  # `decode` before the sigmoid
    parameters: Given[Callable[[str], Mapping[str, Tensor]]] = Given("a training")  # of a network
    map: Given[Callable[..., Tensor]] = Given(MAPPED)  # of z: w [.., *W], as the decoder maps it
    decode_mapped: Given[Callable[..., Tensor]] = Given(MAPPED)  # of w: [.., C, H, W] in [0, 1]
    real_score: Given[Score] = Given(JUDGE, lazy=True)  # of `judged_real`
    fake_score: Given[Score] = Given(JUDGE, lazy=True)  # of `judged_fake`
    discriminator: Given[Callable[..., Score]] = Given(JUDGE)  # for penalties
    judges: Judges = "images"  # what the discriminator judges
    views: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # of several discriminators, by name
    fakes: tuple[str, ...] = ("recon",)  # what `fake` consists of, in this order: recon, prior
    labels: Tensor | None = None  # [B]  of `real`, when `image.classes` says that there are labels
    rng: Callable[[str], Generator] = _keyed_by_stream  # a new generator on the step's device

    def has(self, name: str) -> bool:
        """Tell whether the recipe gives a value: `step.has("recon")`."""
        return vars(self)[name] is not None

    @property
    def fake(self) -> Tensor:
        """[F*B, C, H, W]  The fake images of an image discriminator, in the order of `fakes`."""
        import torch

        images = [getattr(self, name) for name in self.fakes]
        return images[0] if len(images) == 1 else torch.cat(images)

    @property
    def judged_real(self) -> tuple[Tensor, ...]:
        """The inputs of the discriminator that it should call real; `real_score` is of these.

        `(real,)` for images, `(prior_z,)` for latents, `(real, z)` for pairs.
        """
        self._require_choice()
        if self.judges == "images":
            return (self.real,)
        return (self.prior_z,) if self.judges == "latents" else (self.real, self.z)

    @property
    def judged_fake(self) -> tuple[Tensor, ...]:
        """The inputs that it should call fake; `fake_score` is of these.

        `(fake,)` for images, `(z,)` for latents, `(prior, prior_z)` for pairs.
        """
        self._require_choice()
        if self.judges == "images":
            return (self.fake,)
        return (self.z,) if self.judges == "latents" else (self.prior, self.prior_z)

    def _require_choice(self) -> None:
        """Raise `AbsentError` when there are several discriminators, and none is chosen."""
        if choice := _choice(self):
            raise AbsentError("discriminator", choice)

    def about(self, discriminator: str | None) -> Self:
        """Return the step of one of several discriminators, as a loss that names it sees it.

        `None`, and a step of a single discriminator, change nothing.
        """
        if discriminator is None or not self.views:
            return self

        def parameters(network: str) -> Mapping[str, Tensor]:
            judge = network == "discriminator"
            return self.parameters(f"{network} {discriminator}" if judge else network)

        return self.but(**dict(self.views)[discriminator], parameters=parameters, views=())

    def but(self, **changes: Any) -> Self:
        """Return a copy of the step with other values; absent values stay absent."""
        return type(self)(**{**vars(self), **changes})

    @property
    def chance(self) -> Callable[[str], Generator]:
        """The name of `rng` in the first edition; it goes with the next release."""
        warnings.warn("step.chance is step.rng now", DeprecationWarning, stacklevel=2)
        return self.rng
