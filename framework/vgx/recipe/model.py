"""The fields of a recipe, as pydantic models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vgx.errors import RecipeError
from vgx.notebook import html
from vgx.parts.documented import Documented
from vgx.parts.kinds import (
    NAME,
    Augmentation,
    Dataset,
    Decoder,
    Discriminator,
    Encoder,
    Loss,
    Metric,
    Prior,
    Sampler,
    Tracker,
)
from vgx.parts.values import STRICT, Adaptive, ImageSpec, LatentSpec, Rate
from vgx.recipe.yaml import write

Decay = Annotated[float, Field(ge=0, lt=1)]
NetworkName = Literal["encoder", "decoder", "discriminator"]


class Start(Documented):
    """Weights of another training with which networks begin."""

    model_config = STRICT

    run: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1)]
    """Where they are: a run, by its number, name or folder; a folder that `vgx export` wrote; a
    folder of diffusers; the name of either on the hub, `owner/name`; or a file that ends in
    .safetensors."""
    networks: Annotated[tuple[NetworkName, ...], Field(min_length=1)] | None = None
    """The networks that begin with them. `null`: each one that is there and in the recipe."""
    averaged: bool = True
    """Take the averaged weights, with which `vgx sample` draws, where there are any; `false`: those
    that were trained."""


class Fields(Documented):
    """Fields that are strict and frozen."""

    model_config = STRICT

    def __setattr__(self, name: str, value: object) -> None:
        """Raise `RecipeError` that says what to do instead."""
        instead = 'make another one, as in recipe.with_({"train.steps": 10})'
        raise RecipeError(f"{name}: a recipe is frozen; {instead}")


class Optimizer(Fields):
    """The optimizer of one player."""

    type: str = "adam"
    """`adam`, or the name of any optimizer that timm offers."""
    lr: Rate = 2e-4
    """Learning rate: a number, or a schedule `{from: 2e-4, to: 0, steps: 5000, shape: cosine}`."""
    warmup: NonNegativeInt = 0
    """Number of steps in which the rate rises from 0 to `lr`."""
    betas: Annotated[tuple[Decay, ...], Field(min_length=2, max_length=3)] | None = None
    """Decay rates of the averages of the gradient and of its square, for optimizers that have them.
    `null` is 0.5 and 0.999 (Radford et al. 2016) for optimizers that have Adam's default, 0.9 and
    0.999, and the optimizer's own default for others."""
    momentum: NonNegativeFloat | None = None
    """Momentum, for optimizers that have it. `null` is the optimizer's own default."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of all weights of the player, including biases and normalisation layers."""


class Optimizers(Fields):
    """One optimizer for each player."""

    generator: Optimizer = Optimizer()
    """For encoder and decoder."""
    discriminator: Optimizer = Optimizer()
    """For the discriminator."""


def require_each_once(field: str, names: Iterable[str]) -> None:
    """Raise `PydanticCustomError` when a name occurs twice in a list."""
    listed = list(names)
    if twice := sorted({name for name in listed if listed.count(name) > 1}):
        message = "{field}: '{name}' occurs twice; keep one"
        raise PydanticCustomError("twice", message, {"field": field, "name": twice[0]})


class Train(Fields):
    """How long and how the networks are trained."""

    epochs: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Number of passes over the data. Give either `epochs` or `steps`."""
    steps: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Number of updates of the generator. Give either `epochs` or `steps`."""
    batch: Annotated[int, Field(ge=1, le=10**6)] = 64
    """Number of images in a minibatch. At the end of an epoch, a smaller rest is left out."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random numbers of the run."""
    optimizers: Optimizers = Optimizers()
    """One for each player."""
    order: Literal["generator-first", "discriminator-first"] = "generator-first"
    """The player that is updated first. With `generator-first`, one forward pass serves both."""
    discriminator_steps: PositiveInt = 1
    """Updates of the discriminator in each step. Each uses another minibatch."""
    fakes: tuple[Literal["recon", "prior"], ...] = ()
    """The fake images of the discriminator: reconstructions (`recon`), decoded draws from N(0, I)
    (`prior`), or both. By default `[recon]` with an encoder and `[prior]` without."""
    freeze: tuple[NetworkName, ...] = ()
    """Networks that stay as they begin. They get no gradient and no optimizer, and are in
    evaluation mode: BatchNorm uses its stored statistics, and dropout draws nothing."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient of each player. `null` is no limit."""
    accumulate: PositiveInt = 1
    """Number of pieces into which a minibatch is cut to save memory. It must divide `batch`."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights of encoder and decoder, which sampling uses. `null`: none."""
    ema_warmup: bool = False
    """Let the decay rise to `ema`, so that the first weights count less: after n steps the decay is
    at most (1 + n) / (10 + n)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the networks. Losses are always float32. `auto` is `bf16` on a GPU that has it
    and a CPU with AMX, if the losses agree with `fp32`. The run's own recipe has the choice."""
    batch_norm: Literal["global", "local"] = "global"
    """What BatchNorm normalises by when several processes train: the images of all of them, as one
    process would, or each process's own, which is faster and depends on their number."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the networks with `torch.compile`. `auto` is `false`."""
    log_every: PositiveInt = 10
    """Steps between two lines of `log.jsonl`."""
    draw_every: PositiveInt = 500
    """Steps between two image grids in `samples/`."""
    save_every: PositiveInt = 500
    """Steps between two checkpoints."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Number of checkpoints to keep: the newest ones."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """What to do if a loss, gradient or weight is not finite: end the run (`stop`), or go back to
    the newest checkpoint and continue with other random numbers and half the learning rates
    (`rollback`), at most three times."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_each_once("fakes", self.fakes)
        if (self.epochs is None) == (self.steps is None):
            raise PydanticCustomError("train", "give either 'epochs' or 'steps'")
        if self.batch % self.accumulate:
            message = "accumulate: {accumulate} does not divide batch: {batch}"
            numbers = {"accumulate": self.accumulate, "batch": self.batch}
            raise PydanticCustomError("train", message, numbers)
        return self


def value_names(metric: Metric) -> tuple[str, ...]:
    """Return the names of a metric's values."""
    return tuple(metric.gives) or (metric.type,)


def directions(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return for each value of the metrics which is better: "higher" or "lower"."""
    return {name: m.better for m in metrics for name in value_names(m)}


class Eval(Fields):
    """How a run is evaluated."""

    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the images that are held out: no training uses them. They are chosen by their
    content, so equal images are either all held out or all used."""
    metrics: tuple[Metric, ...] = ()
    """Metrics to compute, while training and in `vgx eval`."""
    every: PositiveInt | None = None
    """Steps between two evaluations while training. `null`: no evaluation while training."""
    n: Annotated[int, Field(ge=2)] = 256
    """Largest number of real images, and of generated ones, in an evaluation while training."""
    best: str | None = None
    """A value of the metrics, such as `psnr` or `recall`. The checkpoint where it was best is kept
    in addition to the newest ones."""
    patience: PositiveInt | None = None
    """Evaluations: the training ends when `best` has not become better in so many. `null`: it does
    not end early."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.every is not None and not self.metrics:
            raise PydanticCustomError("eval", "every: there is nothing to evaluate; give metrics")
        if self.best is not None and self.every is None:
            raise PydanticCustomError(
                "eval", "best: nothing is evaluated while training; give every"
            )
        if self.patience is not None and self.best is None:
            raise PydanticCustomError("eval", "patience: nothing says what is better; give best")
        values_of_each = (name for metric in self.metrics for name in directions([metric]))
        require_each_once("metrics", values_of_each)
        values = self.better
        if self.best is not None and self.best not in values:
            message = "best: the metrics give no '{best}'; there are: {names}"
            given = {"best": self.best, "names": ", ".join(values)}
            raise PydanticCustomError("eval", message, given)
        return self

    @property
    def better(self) -> dict[str, str]:
        """Whether "higher" or "lower" is better, for each value of the metrics."""
        return directions(self.metrics)


def _latent(value: object) -> object:
    if isinstance(value, LatentSpec):
        return value
    shape: list[Any] = value if isinstance(value, list) else [value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 10**7 for n in shape)
    if not whole or len(shape) not in (1, 3):
        message = "should be a positive whole number, or [channels, height, width]"
        raise PydanticCustomError("latent", message)
    return LatentSpec(tuple(shape))


def _write_latent(latent: LatentSpec) -> int | list[int]:
    return latent.shape[0] if len(latent.shape) == 1 else list(latent.shape)


Latent = Annotated[
    LatentSpec,
    BeforeValidator(_latent, json_schema_input_type=PositiveInt | list[PositiveInt]),
    PlainSerializer(_write_latent),
]


class Recipe(Fields):
    """A whole experiment, complete and frozen: `load_recipe` reads what `dump_recipe` writes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """The name of run directories: letters, digits, dots, hyphens and underscores."""
    image: ImageSpec
    """The size of the images and more: `{size: 96}`."""
    latent: Latent
    """The shape of one image's latents: a number, or `[channels, height, width]`."""
    dataset: Dataset
    """The source of the images."""
    augment: tuple[Augmentation, ...] = ()
    """Random changes to real images, in this order."""
    diff_augment: tuple[Augmentation, ...] = ()
    """Random changes to all inputs of the discriminator, real and fake images, in this order. The
    gradient passes through them (DiffAugment, Zhao et al. 2020)."""
    encoder: Encoder | None = None
    """The network from images to posteriors. Without an encoder the experiment is a GAN."""
    decoder: Decoder
    """The network from latents to images."""
    discriminator: Discriminator | None = None
    """The network that scores images, latents or pairs. Without a discriminator the experiment is
    a VAE."""
    discriminators: dict[Annotated[str, Field(pattern=NAME)], Discriminator] = {}  # noqa: RUF012 - pydantic copies it
    """Several discriminators by name, in place of `discriminator`. A loss says which one it is
    about: `{type: hinge, discriminator: NAME}`."""
    start: Start | None = None
    """Weights of another training with which the networks begin: `{run: 7}`. `null`: new ones."""
    losses: tuple[Loss, ...]
    """The terms that the players minimise."""
    prior: Prior | None = None
    """A model of the latents or indices, trained after the networks. `null`: none."""
    sampler: Sampler
    """How `vgx sample` draws latents by default."""
    train: Train
    """How long and how the networks are trained."""
    eval: Eval = Eval()
    """How the run is evaluated, while it trains and by `vgx eval`."""
    trackers: tuple[Tracker, ...] = ()
    """Services and files that record the run besides its own log. Each type at most once."""
    allow: tuple[str, ...] = ()
    """Findings of the audit to allow, by their names. `*` stands for any text:
    `unreached:decoder.*`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.losses:
            message = "losses: an experiment without a loss learns nothing"
            raise PydanticCustomError("losses", message)
        labels = [loss.label for loss in self.losses]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            message = "two losses are called '{name}': give one of them a name, 'name: ...'"
            raise PydanticCustomError("losses", message, {"name": twice[0]})
        self._require_networks()
        self._require_prior()
        for part in self.conditional:
            if not self.image.classes:
                message = "the {kind} {type} takes labels: give the number of labels, image.classes"
                raise PydanticCustomError("labels", message, {"kind": part.kind, "type": part.type})
        for loss in self.losses:
            against = loss.weight.against if isinstance(loss.weight, Adaptive) else ()
            require_each_once(f"the weight of '{loss.label}': against", against)
            if lost := [name for name in against if name not in labels or name == loss.label]:
                message = "the weight of '{name}' is against '{lost}', which is no other loss"
                names = {"name": loss.label, "lost": lost[0]}
                raise PydanticCustomError("losses", message, names)
        if self.encoder is None and "recon" in self.train.fakes:
            raise PydanticCustomError("fakes", "train.fakes names 'recon', but there is no encoder")
        lost = [metric.type for metric in self.eval.metrics if metric.pairs]
        if self.encoder is None and lost:
            message = "eval.metrics: '{name}' compares reconstructions, but there is no encoder"
            raise PydanticCustomError("eval", message, {"name": lost[0]})
        require_each_once("trackers", (tracker.type for tracker in self.trackers))
        return self

    def with_(self, changes: Mapping[str, Any] | Sequence[str], **more: Any) -> Recipe:
        """Return the recipe with some values changed: `with_({"train.steps": 10})`.

        The changes are the overrides of `vgx.load_recipe`, and so are further arguments.
        """
        import vgx

        return vgx.load_recipe(self, changes, **more)

    def peek(self, n: int = 64) -> Any:
        """Return at most n images of the data set, as the networks get them: `vgx.peek`."""
        import vgx

        return vgx.peek(self, n)

    def __str__(self) -> str:
        return write(self.model_dump(mode="json"))

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> tuple[str, str]:
        """Return what it is, and its parts."""
        train = self.train
        length = f"{train.steps:,} steps" if train.steps else f"{train.epochs:,} epochs"
        size = f"{self.image.height} x {self.image.width} pixels"
        networks = [f"{name} {part.type}" for name, part in self.networks.items()]
        losses = " + ".join(loss.label for loss in self.losses)
        what = f"Recipe {self.name}: {size}, {length} of {self.images_per_step:,} images"
        return what, f"{', '.join(networks)}; {losses}; data {self.dataset.type}"

    def _repr_html_(self) -> str:
        first, second = self._lines()
        name, _, facts = first.removeprefix("Recipe ").partition(": ")
        whole = html.folded("the whole recipe as YAML", html.lines(str(self).splitlines()))
        return html.block(html.title(name, facts), html.escaped(second), whole)

    @property
    def networks(self) -> dict[str, Encoder | Decoder | Discriminator]:
        """The parts of the networks by name: "encoder", "decoder", and those in `judges`."""
        generator = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: part for name, part in generator.items() if part} | self.judges

    @property
    def judges(self) -> dict[str, Discriminator]:
        """The discriminators by the names of their networks.

        "discriminator" for the short form, "discriminator NAME" for one of several.
        """
        if self.discriminator is not None:
            return {"discriminator": self.discriminator}
        return {f"discriminator {name}": part for name, part in self.discriminators.items()}

    @property
    def conditional(self) -> list[Encoder | Decoder | Discriminator]:
        """The parts of networks that take labels."""
        return [part for part in self.networks.values() if part.conditional]

    def judge_of(self, loss: Loss) -> str | None:
        """Return the network of the discriminator that a loss is about, if there is one."""
        if loss.about is not None:
            return f"discriminator {loss.about}"
        return next(iter(self.judges)) if len(self.judges) == 1 else None

    def named(self, network: str) -> list[str]:
        """Return the networks that `start.networks` or `train.freeze` mean by a name.

        "discriminator" is every discriminator.
        """
        return [name for name in self.networks if name.partition(" ")[0] == network]

    @property
    def frozen(self) -> list[str]:
        """The networks that `train.freeze` means."""
        return [name for each in self.train.freeze for name in self.named(each)]

    def _require_discriminators(self) -> None:
        """Raise when discriminators are ambiguous, or lack what they judge."""
        if self.discriminator is not None and self.discriminators:
            message = "there are 'discriminator' and 'discriminators'; write all below the second"
            raise PydanticCustomError("networks", message)
        for network, part in self.judges.items():
            if self.encoder is None and part.judges != "images":
                message = "the {network} {type} judges {judges}, which need an encoder"
                values = {"network": network, "type": part.type, "judges": part.judges}
                raise PydanticCustomError("networks", message, values)
        for loss in self.losses:
            if loss.about is not None and loss.about not in self.discriminators:
                message = "the loss '{name}' is about the discriminator '{about}'; there is {names}"
                names = ", ".join(self.discriminators) or "none with a name"
                values = {"name": loss.label, "about": loss.about, "names": names}
                raise PydanticCustomError("networks", message, values)

    def _require_prior(self) -> None:
        """Raise when a prior has nothing to learn, or a sampler no prior to draw with."""
        if self.prior is not None and self.encoder is None:
            message = "prior: it learns the codes of an encoder, but there is no encoder"
            raise PydanticCustomError("prior", message)
        if self.sampler.needs_prior and self.prior is None:
            message = "the sampler {name} draws with a prior: give one of those in: vgx parts prior"
            raise PydanticCustomError("prior", message, {"name": self.sampler.type})

    def _require_networks(self) -> None:
        """Raise when `start` or `train.freeze` name a network that the recipe does not have."""
        self._require_discriminators()
        started = (self.start.networks if self.start else None) or ()
        for field, names in (("start.networks", started), ("train.freeze", self.train.freeze)):
            require_each_once(field, names)
            if lost := [name for name in names if not self.named(name)]:
                message = "{field} names the {network}, which this recipe does not have"
                raise PydanticCustomError("networks", message, {"field": field, "network": lost[0]})
        generator = {*self.networks} - {*self.judges}
        if generator <= {*self.train.freeze}:
            message = "train.freeze leaves nothing of the generator to train; take {names} out"
            choice = {"names": " or ".join(sorted(generator))}
            raise PydanticCustomError("networks", message, choice)

    @property
    def takes_labels(self) -> bool:
        """Whether an image needs a label to be reconstructed: encoder or decoder takes labels."""
        encoder = self.encoder is not None and self.encoder.conditional
        return encoder or self.decoder.conditional

    @property
    def trains_discriminator(self) -> bool:
        """Whether the discriminator is a player: there is one that is not frozen, or a critic."""
        frozen = "discriminator" in self.train.freeze
        return bool(self.judges and not frozen) or any(loss.critic for loss in self.losses)

    @property
    def decodes_prior(self) -> bool:
        """Whether each step decodes draws from N(0, I)."""
        pairs = any(part.judges == "pairs" for part in self.judges.values())
        return self.encoder is None or "prior" in self.train.fakes or pairs

    @property
    def batches_per_step(self) -> int:
        """Minibatches that one step takes: one for each update of the discriminator, at least 1."""
        return self.train.discriminator_steps if self.trains_discriminator else 1

    @property
    def images_per_step(self) -> int:
        """Images that one step takes, over all its minibatches."""
        return self.batches_per_step * self.train.batch


# The fields that may change when a run is resumed. Other changes would make another experiment: the
# data set too, but of that the images are compared, so it may lie elsewhere now.
CHANGEABLE = (
    "train.epochs", "train.steps", "train.log_every", "train.draw_every", "train.save_every",
    "train.on_nonfinite", "train.optimizers.generator.lr", "train.optimizers.discriminator.lr",
    "eval.every", "eval.n", "eval.patience", "trackers", "dataset", "sampler.path", "prior",
)  # fmt: skip
