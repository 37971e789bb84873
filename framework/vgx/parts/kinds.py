"""The kinds of part that a recipe is made of: the page to read before writing a plugin.

A part is one final pydantic class. Its fields are what YAML may say, its docstring is its
documentation, its `build` makes the working object:

    class Huber(vgx.Loss, type="huber"):
        "Huber distance, mean over pixels (Huber 1964)."
        delta: PositiveFloat = 1.0

        def generator(self, step: vgx.Step):
            return F.huber_loss(step.recon, step.real, delta=self.delta)

Letters: B pictures, C channels, H x W pixels, Z the latent shape. Images are [B, C, H, W] in
[0, 1].
"""

from __future__ import annotations

import difflib
import json
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeVar,
    runtime_checkable,
)

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    model_serializer,
)
from pydantic import (
    Discriminator as Choose,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from vgx.step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from torch import Generator, Tensor, nn

STRICT = ConfigDict(
    strict=True,
    extra="forbid",
    frozen=True,
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    serialize_by_alias=True,
)


@dataclass(frozen=True)
class ImageSpec:
    """The pictures of an experiment: square, `size` x `size` pixels."""

    __pydantic_config__ = STRICT

    size: Annotated[int, Field(ge=4, le=4096)]
    """Height and width in pixels."""
    channels: Literal[1, 3] = 3
    """3 for RGB, 1 for greyscale."""
    classes: Annotated[int, Field(ge=0, le=10**6)] = 0
    """How many labels the data set gives its pictures, 0 to classes - 1; 0: they have none."""

    @property
    def pixel_values(self) -> int:
        """How many numbers one picture has."""
        return self.channels * self.size**2


@dataclass(frozen=True)
class LatentSpec:
    """The shape Z of one picture's latents: `(256,)`, or `(4, 12, 12)` for a spatial latent."""

    shape: tuple[int, ...]


class Schedule(BaseModel):
    """A weight that changes with the step."""

    model_config = STRICT

    start: Annotated[float, Field(alias="from")]
    """The value at the first step."""
    to: float
    """The value reached after `steps`, or in every cycle."""
    steps: PositiveInt
    """Length of the change, or of one cycle, in training steps."""
    after: NonNegativeInt = 0
    """The step at which the change begins; until then the value is `from`."""
    shape: Literal["linear", "cosine", "cyclical"] = "linear"
    """`cyclical` rises in the first half of each cycle and holds in the second (Fu et al. 2019)."""

    def at(self, number: int) -> float:
        """Return the value after `number` steps."""
        number = max(number - self.after, 0)
        if self.shape == "cyclical":
            done = min(2 * (number % self.steps) / self.steps, 1.0)
        else:
            done = min(number / self.steps, 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.to - self.start) * done


class Adaptive(BaseModel):
    """A weight that keeps a term's gradient level with that of others (Esser et al. 2021, eq. 7).

    |d others / d w| / (|d term / d w| + 1e-4), w being the weight of the decoder's last layer.
    """

    model_config = STRICT

    against: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the generator's terms to be level with, usually the reconstruction's."""
    factor: NonNegativeFloat = 1.0
    """What the ratio is multiplied by."""
    most: PositiveFloat = 1e4
    """The largest ratio."""
    after: NonNegativeInt = 0
    """The step from which the generator's half counts; the discriminator learns before that."""


def _kind_of_number(value: object) -> str:
    if isinstance(value, Adaptive) or (isinstance(value, dict) and "against" in value):
        return "adaptive"
    return "schedule" if isinstance(value, dict | Schedule) else "number"


Rate = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[Schedule, Tag("schedule")],
    Choose(_kind_of_number),
]
Weight = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Schedule, Tag("schedule")]
    | Annotated[Adaptive, Tag("adaptive")],
    Choose(_kind_of_number),
]


def at(value: float | Schedule, number: int) -> float:
    """Return what a number, or a schedule after `number` steps, is."""
    return value.at(number) if isinstance(value, Schedule) else value


class Resolver(Protocol):
    """Finds the class of a part by kind and name; the registry is one."""

    def part(self, kind: str, name: str) -> type[Component]:
        """Return the class, or raise `PydanticCustomError` or `PluginError`."""
        ...


KIND_MARK = "vgx-kind"
# Who reads which attribute of which part, while somebody wants to know.
_READS: ContextVar[set[tuple[int, str]] | None] = ContextVar("reads", default=None)
_Class = type[BaseModel]  # inside a part, `type` is its name in recipes
_TYPE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Component(BaseModel):
    """What all parts share: strict frozen fields, a kind and a type."""

    model_config = STRICT

    kind: ClassVar[str] = ""
    type: ClassVar[str] = ""
    # How the recipe named the part when that was more than its type: "distribution:type".
    _spelling: str = PrivateAttr(default="")

    def __init_subclass__(cls, *, type: str = "", **kwargs: Any) -> None:  # noqa: A002
        """Take the type from the class statement and hold the form: parts are final."""
        super().__init_subclass__(**kwargs)
        if cls.type:
            raise TypeError(f"{cls.__name__}: a part is final, {cls.type!r} can't be subclassed")
        if type and not _TYPE.fullmatch(type):
            raise TypeError(f"{cls.__name__}: type {type!r} is not lowercase-with-hyphens")
        cls.type = type

    def __getattribute__(self, name: str) -> Any:
        """Note what is read: a value in a recipe that nothing reads is a fault."""
        reads = _READS.get()
        if reads is not None:
            reads.add((id(self), name))
        return object.__getattribute__(self, name)

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": self._spelling or self.type, **handler(self)}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: _Class, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A field annotated with a kind takes any registered part of it."""
        if cls.type or not cls.kind:
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Leave a mark for the kind's parts, which `vgx schema` replaces from the registry."""
        if cls.type or not cls.kind:
            return handler(schema)
        return {KIND_MARK: cls.kind}

    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> Component:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "part",
                "should be the name of an installed {kind}, or its fields with a 'type'",
                {"kind": cls.kind},
            )
        fields = dict(value)
        name = fields.pop("type", None)
        if not isinstance(name, str):
            raise PydanticCustomError(
                "part", "should name an installed {kind}: add 'type: ...'", {"kind": cls.kind}
            )
        resolver: Resolver = (info.context or {})["resolver"]
        chosen = resolver.part(cls.kind, name)
        part = validate(chosen, fields, resolver)
        if name != chosen.type:
            part._spelling = name  # noqa: SLF001
        return part

    def note(self, image: ImageSpec) -> str:
        """Return a line for the person who starts the run, or nothing."""
        del image
        return ""

    def untrained(self) -> Self:
        """Return the same part without outside weights: a checkpoint is about to give them."""
        return self


@contextmanager
def noting_reads() -> Iterator[set[tuple[int, str]]]:
    """Note which attributes of parts are read inside the block: pairs of `id(part)` and name."""
    reads: set[tuple[int, str]] = set()
    token = _READS.set(reads)
    try:
        yield reads
    finally:
        _READS.reset(token)


def _dump(part: Component) -> dict[str, Any]:
    return part.model_dump()


class BrokenError(Exception):
    """A part broke its contract while it worked."""

    def __init__(self, part: Component, message: str) -> None:
        """Keep whose fault it is."""
        super().__init__(message)
        self.part = part


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], fields: dict[str, Any], resolver: Resolver) -> M:
    """Make a `model` of plain data, in strict JSON mode: a list is a tuple, but "5" is no number.

    Raises `pydantic.ValidationError` with every fault at once; an unknown field carries the names
    that are allowed there.
    """
    try:
        return model.model_validate_json(json.dumps(fields), context={"resolver": resolver})
    except ValidationError as error:
        faults = [_with_names(model, fault) for fault in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(model.__name__, faults) from None


def _with_names(model: type[BaseModel], fault: Any) -> InitErrorDetails:
    place, kind, context = fault["loc"], fault["type"], fault.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        kind = "unknown_field"
        allowed = _names(model, place[:-1])
        context = {"near": near(str(place[-1]), allowed)}
        message = "unknown field; allowed: " + ", ".join(allowed)
    else:
        message = fault["msg"]
        if "expected" in context:  # a Literal: the names stand in quotes
            names = re.findall(r"'([^']*)'", str(context["expected"]))
            context = {"near": near(str(fault["input"]), names)}
    kept = {key: context[key] for key in ("near", "broken") if key in context}
    return InitErrorDetails(
        type=PydanticCustomError(kind, message, kept), loc=place, input=fault["input"]
    )


def _names(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at `place` below `model`, as YAML writes them."""
    for step in place:
        fields = getattr(model, "model_fields", {}) or getattr(model, "__pydantic_fields__", {})
        if step in fields:
            model = fields[step].annotation
        elif isinstance(step, str):
            model = next((m for m in _members(model) if m.__name__.lower() == step), model)
    for member in _members(model):
        if issubclass(member, BaseModel):
            return [field.alias or name for name, field in member.model_fields.items()]
        if is_dataclass(member):
            return list(member.__dataclass_fields__)
    return []


def _members(annotation: Any) -> Iterable[type]:
    parts = getattr(annotation, "__args__", None) or (annotation,)
    for part in parts:
        if isinstance(part, type):
            yield part
        elif part is not annotation:
            yield from _members(part)


def near(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that `name` was probably meant to be, or nothing."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), "")


# --- data ------------------------------------------------------------------------------------


class Source(Protocol):
    """Pictures by number."""

    @property
    def fingerprint(self) -> str:
        """A string that changes when the data do."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image:
        """Return picture `index`, in any mode and size.

        Raises `vgx.Dropped` for one that the recipe leaves out, anything else for a bad one; a
        `vgx.errors.DataError` "name: why" is quoted, other errors are told by the index.
        """
        ...


@runtime_checkable
class Labelled(Source, Protocol):
    """Pictures by number that are told apart by labels."""

    def label(self, index: int) -> int:
        """Return the label of picture `index`, 0 to `image.classes` - 1."""
        ...


@runtime_checkable
class Factored(Source, Protocol):
    """Pictures by number that are known to come from a few numbers each."""

    def factors(self, index: int) -> dict[str, float]:
        """Return the numbers behind picture `index` by name, the same names for each picture.

        A `float` is a quantity. An `int`, or a `bool`, is the number of a class: only whether two
        are the same says anything.
        """
        ...


class Dataset(Component):
    """Where the pictures come from."""

    kind: ClassVar[str] = "dataset"

    on_bad: Literal["error", "skip"] = "error"
    """A picture that cannot be read ends the program (`error`), or is left out, counted and named
    (`skip`)."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With `skip`, the largest share of such pictures; more of them end the program."""

    @property
    def tolerated(self) -> float | None:
        """The share of pictures that may be unreadable; nothing when none may be."""
        return self.max_bad if self.on_bad == "skip" else None

    @abstractmethod
    def build(self, image: ImageSpec) -> Source:
        """Open the pictures; the image store decodes each once and resizes it."""


class Augmentation(Component):
    """Random changes to real pictures."""

    kind: ClassVar[str] = "augmentation"

    @abstractmethod
    def build(self, image: ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make a callable: images [B, C, H, W] in [0, 1] and a generator -> the same shape.

        It sees whole batches on the training device and draws for each picture by itself.
        """


# --- networks --------------------------------------------------------------------------------


class Encoder(Component):
    """Pictures to posteriors."""

    kind: ClassVar[str] = "encoder"

    @abstractmethod
    def build(self, image: ImageSpec, latent: LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> `Posterior` over [B, *Z]."""


class Decoder(Component):
    """Latents to pictures; the generator of a GAN."""

    kind: ClassVar[str] = "decoder"
    conditional: ClassVar[bool] = False
    """Whether its module also takes labels [B]: `module(z, labels)`."""

    @abstractmethod
    def build(self, latent: LatentSpec, image: ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]; the engine applies the sigmoid."""


class Discriminator(Component):
    """Pictures to verdicts."""

    kind: ClassVar[str] = "discriminator"
    conditional: ClassVar[bool] = False
    """Whether its module also takes labels [B]: `module(images, labels)`."""

    @abstractmethod
    def build(self, image: ImageSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] in [0, 1] -> `Score`; high means real."""


# --- losses ----------------------------------------------------------------------------------


class LossTerm(Protocol):
    """What the engine asks in every step; a `Loss` is one."""

    def generator(self, step: Step) -> Tensor | None:
        """Return the encoder's and decoder's loss: a scalar, mean over the batch."""
        ...

    def discriminator(self, step: Step) -> Tensor | None:
        """Return the discriminator's loss: a scalar, mean over the batch."""
        ...


class Loss(Component):
    """A function of what the step computed, for one player or for both.

    In a loss for both players `weight` scales the generator's half and the discriminator's counts
    1; in one for the discriminator alone it scales that.
    """

    kind: ClassVar[str] = "loss"

    weight: Weight = 1.0
    """A number, a schedule `{from: 0, to: 1, steps: 5000, shape: linear}`, or level with other
    terms: `{against: [l1]}`."""
    start: NonNegativeInt = 0
    """The step from which the term counts."""
    every: PositiveInt = 1
    """Steps from one time that the term is asked to the next, when it counts as many times as much:
    lazy regularisation (Karras et al. 2020)."""
    reaches: Annotated[tuple[Literal["encoder", "decoder"], ...], Field(min_length=1)] | None = None
    """The networks that the generator's half moves; `null` is both. The discriminator's half moves
    the discriminator."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    """What the log calls it, in letters, digits, - and _; by default its type."""

    @property
    def label(self) -> str:
        """The name in logs and messages."""
        return self.name or self.type

    def build(self) -> LossTerm:
        """Return what is asked in each step.

        A loss with weights of its own returns a module with `generator` and `discriminator`;
        those weights are trained by the generator's optimizer and saved with the run.
        """
        return self

    def generator(self, step: Step) -> Tensor | None:
        """Return the generator's half, a scalar, or nothing to say."""
        del step
        return None

    def discriminator(self, step: Step) -> Tensor | None:
        """Return the discriminator's half, a scalar, or nothing to say."""
        del step
        return None


# --- sampling and looking --------------------------------------------------------------------


class Drawer(Protocol):
    """Gives new latents."""

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  New latents; `codes` [K, *Z] are the run's stored latents, oldest first.

        Latent i depends on the generator's seed and on i alone, never on n.
        """
        ...


@runtime_checkable
class Fitted(Drawer, Protocol):
    """A drawer that learns from the run's latents first; what it learned is saved with the run."""

    def fit(self, codes: Tensor) -> None:
        """Learn from codes [K, *Z]."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what was learned before, instead of `fit`."""
        ...


class Sampler(Component):
    """A way to draw latents from a trained run."""

    kind: ClassVar[str] = "sampler"

    @abstractmethod
    def build(self, latent: LatentSpec) -> Drawer:
        """Make what draws latents of shape Z."""

    def pictures(self, image: ImageSpec) -> Source | None:
        """Return pictures whose posterior means are drawn from instead of the run's latents."""
        del image
        return None


class Gauge(Protocol):
    """A measurement that is fed with batches."""

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Take in [B, C, H, W] pictures of each side, in [0, 1]."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the numbers by name."""
        ...


class Features(Component):
    """Pictures to the numbers that metrics compare them by."""

    kind: ClassVar[str] = "features"

    @abstractmethod
    def build(self, image: ImageSpec) -> nn.Module:
        """Make a module that is not trained: images [N, C, H, W] in [0, 1] -> features [N, F].

        The features of a picture depend on that picture alone.
        """


class Metric(Component):
    """A measure of generated pictures against real ones."""

    kind: ClassVar[str] = "metric"
    pairs: ClassVar[bool] = False
    """Whether it compares each picture with its reconstruction, or two sets of pictures."""
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    """Which of two values of it is the better one."""
    gives: ClassVar[tuple[str, ...]] = ()
    """The names of its numbers, when it gives others than one of the name of its type."""
    wants: ClassVar[int] = 0
    """How many pictures of each side it needs to say much; with fewer `vgx eval` says so."""

    @abstractmethod
    def build(self, image: ImageSpec) -> Gauge:
        """Make a fresh measurement."""


@runtime_checkable
class Comparison(Protocol):
    """A metric of features alone: those of real pictures are computed once for all of its kind."""

    features: Features

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare features [N, F] of real pictures with those of generated ones [M, F]."""
        ...


class Journal(Protocol):
    """An open tracker."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Keep the values of one step."""
        ...

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Keep a picture [C, H, W] in [0, 1]."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Tracker(Component):
    """A place that follows a run while it trains, besides the run's own log and pictures.

    It is told of each logged step under names such as `losses/l1`, `rates/generator`,
    `metrics/psnr`, and of the grids `samples` and `recon`. One that raises is set aside with a
    warning, and the training goes on.
    """

    kind: ClassVar[str] = "tracker"
    needs: ClassVar[str | None] = None
    """The library that it works with and that may be absent; the run does not start then."""

    @abstractmethod
    def build(self, run: Path) -> Journal:
        """Open it for the run in this directory; again for each resume.

        What it keeps in that directory it keeps in its folder `trackers`. Steps may come again,
        after a resume or a rollback: they take the place of what was told of them and of later
        ones.
        """


KINDS: tuple[type[Component], ...] = (
    Dataset,
    Augmentation,
    Encoder,
    Decoder,
    Discriminator,
    Loss,
    Sampler,
    Features,
    Metric,
    Tracker,
)
