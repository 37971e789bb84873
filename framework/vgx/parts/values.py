"""Values that recipes and parts share: shapes, and numbers that change with the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)
from pydantic import (
    Discriminator as Choose,
)
from pydantic_core import PydanticCustomError

from vgx.errors import RecipeError
from vgx.parts.documented import Documented

SMALLEST, LARGEST = 4, 4096  # pixels of an image's sides
_MOST = 3.4e38  # which a float of 32 bits can hold
# What all models of a recipe share. Serialization by alias: YAML says `from`, not `start`.
STRICT = ConfigDict(
    strict=True,
    extra="forbid",
    frozen=True,
    allow_inf_nan=False,
    serialize_by_alias=True,
)


def _size(value: object) -> object:
    sides = list(value) if isinstance(value, list | tuple) else [value]
    whole = all(type(side) is int and SMALLEST <= side <= LARGEST for side in sides)
    if not whole or len(sides) not in (1, 2):
        message = "should be a number of pixels from {least} to {most}, or [height, width]"
        raise PydanticCustomError("size", message, {"least": SMALLEST, "most": LARGEST})
    return sides[0] if len({*sides}) == 1 else tuple(sides)


_Side = Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
Size = Annotated[
    int | tuple[int, int],
    BeforeValidator(
        _size,
        json_schema_input_type=_Side | Annotated[list[_Side], Field(min_length=2, max_length=2)],
    ),
]


def _colour(value: object) -> object:
    if value != "auto":
        from PIL import ImageColor

        try:
            ImageColor.getrgb(str(value))
        except ValueError:
            message = "should be auto, the name of a colour, or '#rrggbb' in quotes"
            raise PydanticCustomError("colour", message) from None
    return value


Colour = Annotated[str, AfterValidator(_colour)]


def _range(value: object) -> object:
    if value == "auto":
        return value
    numbers = list(value) if isinstance(value, list | tuple) else []
    known = all(type(number) in (int, float) and abs(number) <= _MOST for number in numbers)
    if len(numbers) != 2 or not known or numbers[0] >= numbers[1]:
        message = "should be auto or [low, high], two numbers, the smaller one first"
        raise PydanticCustomError("range", message)
    return tuple(numbers)


_Limits = Annotated[list[float], Field(min_length=2, max_length=2)]
Range = Annotated[
    Literal["auto"] | tuple[float, float],
    BeforeValidator(_range, json_schema_input_type=Literal["auto"] | _Limits),
]


@dataclass(frozen=True)
class ImageSpec:
    """The images of an experiment."""

    __pydantic_config__ = ConfigDict(**STRICT, use_attribute_docstrings=True)

    size: Size
    """Height and width in pixels: a number for square images, or `[height, width]`."""
    channels: Annotated[int, Field(ge=1, le=256)] = 3
    """3 for RGB, 1 for greyscale, 4 for RGBA. Any other number for images that have just so many
    channels: arrays, and TIFF files with as many pages or samples."""
    classes: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Number of labels in the data set: a label is a number from 0 to classes - 1. With 0 the
    images have no labels."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image of other proportions gets this size: `squash` changes its proportions, `crop`
    takes the largest part in its middle, `pad` takes all of it and fills the rest with the
    background."""
    background: Colour = "auto"
    """The colour behind transparent pixels and around padded images: a name or `#rrggbb`. `auto` is
    white if the first transparent images are dark where they are visible, otherwise black."""
    range: Range = "auto"
    """The values that become black and white. `auto`: 0 and 255 for images of 8 bits, for others as
    measured over all images."""

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as a tensor: (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def pixel_values(self) -> int:
        """The number of values in one image: channels x height x width."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class LatentSpec:
    """The shape Z of the latents of one image: `(256,)`, or `(4, 12, 12)` for a spatial latent."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in the latents of one image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class CodeSpec:
    """What a prior learns: the codes of images, which are latents or indices of a codebook."""

    shape: tuple[int, ...]
    """Of one image: Z of latents; the places of indices, and their levels if there are several."""
    codes: int = 0
    """Number of values of an index; 0 for latents."""
    classes: int = 0
    """Number of labels; 0 when the images have none."""
    mean: tuple[float, ...] = ()
    """Mean of the latents by channel, over all images and places; empty for indices."""
    deviation: tuple[float, ...] = ()
    """Standard deviation of the latents by channel, above 0; empty for indices."""


class Schedule(Documented):
    """A number that changes with the step."""

    model_config = STRICT

    start: Annotated[float, Field(alias="from")]
    """The value at the first step."""
    to: float
    """The value after `steps`. With `cyclical`, the largest value of each cycle."""
    steps: PositiveInt | None = None
    """Length of the change, or of one cycle, in training steps. `null`: from `after` to the end of
    the training."""
    after: NonNegativeInt = 0
    """The step at which the change begins. Until then the value is `from`."""
    shape: Literal["linear", "cosine", "cyclical"] = "linear"
    """`cyclical` rises in the first half of each cycle and holds in the second (Fu et al. 2019)."""

    @model_validator(mode="before")
    @classmethod
    def _no_shape_alone(cls, value: object) -> object:
        if isinstance(value, str):
            example = f"{{from: 3e-4, to: 0, shape: {value}}}"
            raise PydanticCustomError(
                "schedule", "write a schedule: {example}", {"example": example}
            )
        return value

    def at(self, number: int) -> float:
        """Return the value after `number` steps of training."""
        if self.steps is None:
            raise RecipeError("a schedule without steps has values in a training alone")
        number = max(number - self.after, 0)
        if self.shape == "cyclical":
            done = min(2 * (number % self.steps) / self.steps, 1.0)
        else:
            done = min(number / self.steps, 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.to - self.start) * done


class Adaptive(Documented):
    """A weight that scales a term's gradient to the size of other terms' gradient.

    The weight is |d others / d w| / (|d term / d w| + 1e-4), where w is the weight of the decoder's
    last layer (Esser et al. 2021, eq. 7): the trained one of two or more dimensions that is nearest
    to the output.
    """

    model_config = STRICT

    against: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the other terms of the generator, usually the reconstruction's."""
    factor: NonNegativeFloat = 1.0
    """The ratio is multiplied by this number."""
    most: PositiveFloat = 1e4
    """The largest ratio."""
    after: NonNegativeInt = 0
    """The step from which the generator's term counts. The discriminator's term counts from the
    first step."""


class Share(Documented):
    """A weight that is a share of the gradient at the decoder's output (Defossez et al. 2022).

    All terms of the generator with such a weight are balanced: the norms of their gradients there,
    before the sigmoid, are as these numbers, whatever the terms' own sizes. The first of them in
    the recipe keeps its own gradient, so that beside it a number as a weight means what it does
    elsewhere. In the paper the sum of the norms is constant, and norms are moving averages; here
    they are those of the minibatch, so that a step depends on nothing that was before it.
    """

    model_config = STRICT

    share: PositiveFloat
    """How large the gradient is beside the other terms' shares, which need not have a sum of 1."""
    after: NonNegativeInt = 0
    """The step from which the generator's term counts. The discriminator's term counts from the
    first step."""


def _kind_of_number(value: object) -> str:
    if isinstance(value, Adaptive) or (isinstance(value, dict) and "against" in value):
        return "adaptive"
    if isinstance(value, Share) or (isinstance(value, dict) and "share" in value):
        return "Share"
    shape = isinstance(value, str) and value in ("linear", "cosine", "cyclical")
    return "schedule" if shape or isinstance(value, dict | Schedule) else "number"


Rate = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[Schedule, Tag("schedule")],
    Choose(_kind_of_number),
]
Weight = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Schedule, Tag("schedule")]
    | Annotated[Adaptive, Tag("adaptive")]
    | Annotated[Share, Tag("Share")],  # not "share", a field, which errors would name
    Choose(_kind_of_number),
]


def at(value: float | Schedule, number: int) -> float:
    """Return the value of a number or of a schedule after `number` steps of training."""
    return value.at(number) if isinstance(value, Schedule) else value
