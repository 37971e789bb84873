"""The eleven kinds of part that a recipe is made of: read this page before you write a plugin.

A part is one final pydantic class. Its fields are what a recipe can set, its docstring is its
documentation, and its `build` makes the object that works:

    class Huber(vgx.Loss, type="huber"):
        "Huber distance, mean over pixels (Huber 1964)."
        delta: PositiveFloat = 1.0

        def generator(self, step: vgx.Step):
            return F.huber_loss(step.recon, step.real, delta=self.delta)

Letters: B images, C channels, H x W pixels, Z the latent shape. Images are [B, C, H, W] in [0, 1].
"""

from __future__ import annotations

import functools
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    runtime_checkable,
)

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from vgx.errors import Notice
from vgx.parts.base import Component
from vgx.parts.values import CodeSpec, ImageSpec, LatentSpec, Weight
from vgx.step import Judges, Posterior, Step

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image
    from torch import Generator, Tensor, nn


NAME = r"^[A-Za-z0-9_-]+$"  # of a loss or a discriminator


# --- data ------------------------------------------------------------------------------------


class Source(Protocol):
    """A sequence of images."""

    @property
    def fingerprint(self) -> str:
        """A string that changes when the data change, or the libraries that some images need."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return image `index` as it is: a PIL image of any mode and size, or an array.

        An array is [H, W] or [H, W, C] of uint8, uint16 or floats. The recipe's `image` decides
        what becomes of it.

        Raises `vgx.Dropped` for an image that the recipe leaves out. Any other exception means that
        the image cannot be read. The message of a `vgx.DataError`, "name: why", is shown to the
        user as it is; for other exceptions the message names the image by its index.
        """
        ...


@runtime_checkable
class Labelled(Source, Protocol):
    """A sequence of images with labels."""

    def label(self, index: int) -> int:
        """Return the label of image `index`, from 0 to `image.classes` - 1.

        An image whose label is negative has none, and must be left out with `vgx.Dropped`.
        """
        ...


@runtime_checkable
class Named(Labelled, Protocol):
    """A sequence of images with labels that have names."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels 0, 1, 2, ...: as many as `image.classes`."""
        ...


@runtime_checkable
class Factored(Source, Protocol):
    """A sequence of images that were generated from known factors, such as size or colour."""

    def factors(self, index: int) -> dict[str, float]:
        """Return the factors of image `index` by name. All images have the same names.

        A `float` is a quantity. An `int` or a `bool` is the number of a class.
        """
        ...


@runtime_checkable
class Encoded(Source, Protocol):
    """A sequence of images that are in files, or in rows that hold what a file would."""

    def encoded(self, index: int) -> bytes:
        """Return the file of image `index` as it is, before it is decoded.

        It is empty for an image that is in no file, such as numbers in a column.
        """
        ...


@runtime_checkable
class Grouped(Source, Protocol):
    """A sequence of images in groups that are read as a whole, such as the row groups of parquet.

    There may be more images than a disk holds: they are not stored, but read again when needed. The
    fingerprint changes when the data change, and not when they are copied elsewhere.
    """

    @property
    def groups(self) -> Sequence[int]:
        """Return how many images each group has; their images follow each other."""
        ...

    @property
    def group_bytes(self) -> int:
        """Return the size in memory of the largest group, about."""
        ...

    @property
    def revision(self) -> str:
        """Return the commit of the data, which `dataset.revision` takes; "" when there is none."""
        ...

    def group(self, number: int) -> Encoded:
        """Read a group. Its images are in memory then, still encoded.

        Threads call this. Raises `DataError` or `HubError` when the group cannot be read.
        """
        ...


@runtime_checkable
class Counted(Source, Protocol):
    """A sequence of images that knows which other files lie beside them."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many files are left out, by reason: ".heic", "hidden file", "run of vgx"."""
        ...


class Dataset(Component):
    """The source of the images."""

    kind: ClassVar[str] = "dataset"

    on_bad: Literal["error", "skip"] = "error"
    """What to do with an image that cannot be read: end the program (`error`), or leave the image
    out, count it and show its name (`skip`)."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With `skip`, the largest share of such images. If there are more, the program ends."""

    @property
    def tolerated(self) -> float | None:
        """The largest share of images that may be unreadable, or `None` if all must be readable."""
        return self.max_bad if self.on_bad == "skip" else None

    @classmethod
    def fields_for(cls, place: str) -> dict[str, Any] | None:
        """Return the fields with which this data set opens a place of `--data`: a path or a name.

        `None` if it does not open this place. A `DataError` that says why not is shown to the user
        if no other data set opens it.
        """
        del place
        return None

    def asks(self) -> str:
        """Return whom `build` asks over a network, such as "the hub"; an empty text for nobody.

        The user reads it before `build` is called.
        """
        return ""

    @abstractmethod
    def build(self, image: ImageSpec) -> Source:
        """Open the images. The image store decodes and resizes each image once.

        A `Grouped` source is not stored: its images are decoded when they are needed.
        """


class Augmentation(Component):
    """Random changes to real images."""

    kind: ClassVar[str] = "augmentation"

    @abstractmethod
    def build(self, image: ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make a callable: images [B, C, H, W] in [0, 1] and a generator -> the same shape.

        It gets whole batches on the training device, and draws for each image independently. It may
        be an `nn.Module`, whose buffers are saved with the run; see `Timed` and `Observing`.
        """


# --- networks --------------------------------------------------------------------------------


class Encoder(Component):
    """A network from images to posterior distributions of the latents."""

    kind: ClassVar[str] = "encoder"
    conditional: ClassVar[bool] = False
    """Whether the module also takes labels [B]: `module(images, labels)`."""
    uses_decoder: ClassVar[bool] = False
    """Whether the module also takes the decoder's module, as its last argument: the one that
    belongs to it, with averaged weights beside averaged ones. It may call it, and its losses train
    it; it does not keep it, or the weights would be saved twice."""

    @abstractmethod
    def build(self, image: ImageSpec, latent: LatentSpec) -> nn.Module:
        """Make a module: images [B, C, H, W] -> `Posterior` over [B, *Z].

        A module whose latents are vectors of a codebook is `Quantising`. A posterior that computes
        its KL from N(0, I) is `KnowsKl`.
        """


@runtime_checkable
class Indexed(Posterior, Protocol):
    """A posterior over the vectors of a codebook, which have an index at each place."""

    @property
    def indices(self) -> Tensor:
        """[B, *places] or [B, *places, levels]  Integers from 0 to `Quantising.codes` - 1.

        The places are Z without its channels: h x w of a spatial latent, none of a flat one.
        """
        ...


@runtime_checkable
class Quantising(Protocol):
    """The module of an encoder whose posterior is `Indexed`, as models of the indices need it."""

    @property
    def codes(self) -> int:
        """The number of values that an index can have."""
        ...

    def from_indices(self, indices: Tensor) -> Tensor:
        """Return the latents [n, *Z] of indices [n, *places] or [n, *places, levels].

        Those of `posterior.indices` are `posterior.mean`.
        """
        ...


class Decoder(Component):
    """A network from latents to images; the generator of a GAN."""

    kind: ClassVar[str] = "decoder"
    conditional: ClassVar[bool] = False
    """Whether the module also takes labels [B]: `module(z, labels)`."""

    @abstractmethod
    def build(self, latent: LatentSpec, image: ImageSpec) -> nn.Module:
        """Make a module: z [B, *Z] -> logits [B, C, H, W]. The engine applies the sigmoid.

        A module that maps its latents before it decodes them may be `Mapped`.
        """


@runtime_checkable
class Mapped(Protocol):
    """The module of a decoder with a mapping network, such as StyleGAN's (Karras et al. 2019).

    `module(z)` is `module.decode_mapped(module.map(z))`. If the module also has a buffer `w_mean`,
    the mean of w over the latents of the training, of a shape that extends to [B, *W], then w can
    be truncated.
    """

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return w [B, *W] of latents [B, *Z]. Only a conditional decoder gets labels [B]."""
        ...

    def decode_mapped(self, w: Tensor) -> Tensor:
        """Return the logits [B, C, H, W] of w [B, *W]."""
        ...


@runtime_checkable
class Published(Protocol):
    """An encoder or decoder whose network is that of a class of diffusers.

    Its weights have the names of that class, those before the latent in the encoder (`encoder.*`,
    `quant_conv.*`), the others in the decoder (`decoder.*`, `post_quant_conv.*`). So `vgx export`
    and `vgx import` exchange them, and a training can start from them.
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the fields with which this part is the network that a `config.json` describes.

        `None` for a class (`config["_class_name"]`) that is not this part. Raises `StorageError`
        for a `config.json` of this class that the part cannot be. The file may come from anybody.
        """
        ...

    def config(self, image: ImageSpec, latent: LatentSpec) -> dict[str, Any]:
        """Return what `config.json` says of this part: fields that diffusers' class takes."""
        ...

    def halvings(self) -> int:
        """Return how often an encoder halves the images, or a decoder doubles the latents."""
        ...


class Discriminator(Component):
    """A network that scores images, latents, or pairs of both: whether they look real."""

    kind: ClassVar[str] = "discriminator"
    judges: ClassVar[Judges] = "images"
    """What the module takes, and what it should tell apart:

    `images`: `module(images)`; images of the data set from the fakes of `train.fakes`.
    `latents`: `module(z)`; draws from N(0, I) from the encoder's latents.
    `pairs`: `module(images, z)`; images of the data set with their latents from decoded draws of
    N(0, I) with these draws."""
    conditional: ClassVar[bool] = False
    """Whether the module also takes labels [B] after that: `module(images, labels)`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept a `build` of earlier versions."""
        super().__init_subclass__(**kwargs)
        _accept_old_build(cls)

    @abstractmethod
    def build(self, image: ImageSpec, latent: LatentSpec) -> nn.Module:
        """Make a module that gives a `Score` of what it judges. High logits mean real.

        Images are [B, C, H, W] in [0, 1], latents [B, *Z].
        """


def _accept_old_build(cls: type[Component]) -> None:
    """Let a `build` that takes fewer shapes than `(image, latent)` be called with both.

    This is for parts that were written for earlier versions, and goes with the next release.
    """
    build: Any = cls.__dict__.get("build")
    if build is None:
        return
    parameters = [*inspect.signature(build).parameters.values()]
    taken = len(parameters) - 1
    if taken >= 2 or any(each.kind == each.VAR_POSITIONAL for each in parameters):
        return

    warned: list[str] = []

    @functools.wraps(build)
    def accepting(self: Component, *shapes: Any) -> Any:
        if not warned:  # once, however often it is built
            message = f"{cls.kind} '{cls.type}': write def build(self, image, latent) in its class"
            warnings.warn(f"{message}; the next release refuses the old form", Notice, stacklevel=2)
            warned.append(message)
        return build(self, *shapes[:taken])

    type.__setattr__(cls, "build", accepting)


# --- what changes with time ------------------------------------------------------------------


@runtime_checkable
class Timed(Protocol):
    """A network, a module in it, or an augmentation that changes with the step."""

    def at(self, number: int, progress: float) -> None:
        """Become what it is in step `number`, counted from 0; `progress` goes from 0 to 1.

        It is called before each forward pass of a training. The result is a function of these two
        numbers alone, and is kept in buffers, so that a checkpoint has it for sampling.
        """
        ...


@runtime_checkable
class Observing(Protocol):
    """An augmentation that sees each step of a training, and changes with what it sees.

    What it keeps are buffers of the `nn.Module` that `build` returns: they are saved with the run.
    """

    def observe(self, step: Step) -> None:
        """See a step after its forward pass, before its losses: once for each minibatch.

        In a recipe with a discriminator it is the pass in which that is trained. With
        `train.accumulate` it is called for each piece of the minibatch. Gradients are off. With
        several discriminators `step.about(name)` has the scores of one; `step.views` has the names.
        """
        ...


@runtime_checkable
class Reporting(Protocol):
    """The module of a network, loss or augmentation, or one inside, with figures of its own."""

    def figures(self) -> dict[str, float]:
        """Return numbers by name, such as a probability that it adapts: they are logged.

        It is called when a step is logged, after that step, and changes nothing. A value that is
        not finite is left out of the log.
        """
        ...


# --- losses ----------------------------------------------------------------------------------


class LossTerm(Protocol):
    """What the engine calls in each step. Every `Loss` is a `LossTerm`."""

    def generator(self, step: Step) -> Tensor | None:
        """Return the loss of encoder and decoder: a scalar, the mean over the batch."""
        ...

    def discriminator(self, step: Step) -> Tensor | None:
        """Return the loss of the discriminator: a scalar, the mean over the batch."""
        ...


class Loss(Component):
    """A function of what the step computed, with a term for one player or for both.

    `weight` scales the generator's term. The discriminator's term of the same loss counts 1. In a
    loss for the discriminator alone, `weight` scales the discriminator's term.
    """

    kind: ClassVar[str] = "loss"
    critic: ClassVar[bool] = False
    """Whether the module that `build` returns has a network of the discriminator's player, in its
    attribute `critic`."""
    pixelwise: ClassVar[bool] = False
    """Whether the value is the mean over pixel values of a distance between image and
    reconstruction. The effective beta of `kl` is its weight over the sum of their weights."""
    across_batch: ClassVar[bool] = False
    """True: the value depends on which images share a minibatch, so `train.accumulate` changes it.
    `vgx check` measures that, unless the loss draws random numbers. Of several processes each
    computes the loss of the whole minibatch, whose values are gathered when they are read."""

    weight: Weight = 1.0
    """A number; a schedule `{from: 0, to: 1, steps: 5000, shape: linear}`; `{against: [l1]}`,
    which keeps the gradient as large as that of other terms; or `{share: 0.3}`, a share of the
    gradient at the decoder's output."""
    start: NonNegativeInt = 0
    """The step from which the term counts."""
    stop: PositiveInt | None = None
    """The step from which the term no longer counts. `null`: it counts to the end."""
    every: PositiveInt = 1
    """Compute the term only once in so many steps, and multiply it by this number: lazy
    regularisation (Karras et al. 2020)."""
    reaches: Annotated[tuple[Literal["encoder", "decoder"], ...], Field(min_length=1)] | None = None
    """The networks that the generator's term trains; `null` is both. The discriminator's term
    trains the discriminator."""
    # Its name in Python is another one, because `discriminator` is the method below.
    about: Annotated[str, Field(pattern=NAME)] | None = Field(None, alias="discriminator")
    """The discriminator that the loss is about, when the recipe has several."""
    name: Annotated[str, Field(pattern=NAME)] | None = None
    """The name in the log: letters, digits, - and _. By default it is the type, followed by the
    name of the discriminator if one is given."""

    @property
    def label(self) -> str:
        """The name in logs and messages."""
        return self.name or "-".join(filter(None, (self.type, self.about)))

    @model_validator(mode="after")
    def _stops_after_its_start(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            message = "stop: {stop} is not after start: {start}, so the term would never count"
            raise PydanticCustomError("stop", message, {"stop": self.stop, "start": self.start})
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept a `build` of earlier versions."""
        super().__init_subclass__(**kwargs)
        _accept_old_build(cls)

    def build(self, image: ImageSpec, latent: LatentSpec) -> LossTerm:
        """Return the object that computes the terms in each step; by default, the loss itself.

        A loss with parameters returns a module with the methods `generator` and `discriminator`.
        The generator's optimizer trains these parameters, and they are saved with the run. Those of
        its attribute `critic` are trained by the discriminator's optimizer instead: by the term
        `discriminator`, in each of its steps. The term `generator` leaves them as they are.
        """
        del image, latent
        return self

    def generator(self, step: Step) -> Tensor | None:
        """Return the generator's term, a scalar, or `None` if there is none."""
        del step
        return None

    def discriminator(self, step: Step) -> Tensor | None:
        """Return the discriminator's term, a scalar, or `None` if there is none."""
        del step
        return None

    def note_beside(self, losses: Sequence[Loss], image: ImageSpec) -> str:
        """Return a line to print before the training, or an empty string.

        `losses` are all losses of the recipe. A line that does not depend on them is returned by
        `note`.
        """
        del losses, image
        return ""


# --- the second stage ------------------------------------------------------------------------


class Prior(Component):
    """A model of the codes of a finished autoencoder, which is trained after it.

    The final encoder encodes all images that were trained on, and the prior learns the distribution
    of these codes, so that a sampler can draw new ones. Its training is plain: Adam at one learning
    rate, and averaged weights for drawing.
    """

    kind: ClassVar[str] = "prior"
    of: ClassVar[Literal["latents", "indices"]] = "latents"
    """What it learns: latents [*Z], or the indices of an encoder whose module is `Quantising`."""
    conditional: ClassVar[bool] = False
    """Whether `loss` and `draw` also take labels [B]: `loss(codes, labels, generator)`. The labels
    are None when the recipe has none."""

    steps: PositiveInt = 4000
    """Number of updates."""
    batch: PositiveInt = 64
    """Number of images in a minibatch; all of them if there are fewer."""
    lr: PositiveFloat = 3e-4
    """Learning rate of Adam. It rises to this value in the first 100 steps."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights that draw; after n steps it is at most (1 + n) / (10 + n)."""

    @abstractmethod
    def build(self, latent: LatentSpec, codes: CodeSpec) -> nn.Module:
        """Make a module with two methods; `codes` describes what it learns.

        `loss(codes, generator)` returns the loss of codes, a scalar, the mean over the batch:
        latents [B, *Z], or indices [B, *places] of int64. `draw(n, generator)` returns n new codes
        of the same shape; its noise is drawn on the generator's device. What else `draw` takes are
        keywords with defaults, such as a temperature: samplers may set them. A conditional prior
        takes labels before the generator.
        """


# --- sampling --------------------------------------------------------------------------------


class LatentSampler(Protocol):
    """Draws new latents."""

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """Return new latents [n, *Z]; `codes` [K, *Z] are the run's stored latents, oldest first.

        Latent i depends on the generator's seed and on i alone, never on n. When the decoder takes
        labels, `draw` is called once for each label: `codes` are then the latents of images with
        that label, and the new latents are decoded with it.

        A sampler that needs the trained networks also has `use`: see `UsesModel`.
        """
        ...


@runtime_checkable
class Fitted(LatentSampler, Protocol):
    """Draws new latents from a model that is fitted to the run's latents and saved with the run."""

    def fit(self, codes: Tensor) -> None:
        """Fit the model to stored latents [K, *Z]."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the fitted model as tensors by name."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a model that was fitted before, instead of calling `fit`."""
        ...


@runtime_checkable
class UsesModel(Protocol):
    """What a sampler or a metric builds, if it is given the trained networks.

    The `update` of a metric's state that has `use` also takes the labels [B] of the real images,
    `update(real, fake, labels=None)`; they are `None` where there are none.
    """

    def use(self, model: Any) -> None:
        """Take the `vgx.Model`, once, before anything is fitted, loaded, drawn or measured.

        Its networks are in evaluation mode; they are read and never changed. They may be on a GPU,
        while the stored latents that a sampler gets, and the latents that it draws, are on the CPU.
        Raises `RecipeError` for a model that cannot be used, such as one without an encoder.
        """
        ...


@runtime_checkable
class OfClass(LatentSampler, Protocol):
    """Draws new latents of one class, when the recipe has labels."""

    def draw_class(self, label: int, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """Return new latents [n, *Z] of a class; otherwise as `draw`, in whose place it is called.

        `codes` may be empty.
        """
        ...


@runtime_checkable
class Decodes(LatentSampler, Protocol):
    """Draws latents, and decodes them in a way of its own, with a model that it got by `use`."""

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return the images [n, C, H, W] in [0, 1] of latents [n, *Z] that `draw` returned.

        It is called in place of `vgx.Model.decode`, with gradients off, and with tensors on the
        model's device. `labels` [n] are `None` for a decoder that takes none. Image i depends on
        latent i and its label alone.
        """
        ...


class Sampler(Component):
    """A way to draw latents from a trained run."""

    kind: ClassVar[str] = "sampler"
    needs_prior: ClassVar[bool] = False
    """Whether it draws with the run's prior, so that there must be one: `prior` in the recipe."""
    needs_losses: ClassVar[bool] = False
    """Whether it draws with the weights of losses, `model.losses`, so that `vgx export` keeps them.
    What `build` returns has `use`: see `UsesModel`."""
    one_label: ClassVar[bool] = False
    """Whether all images of one drawing have the same label, when the decoder takes labels. If
    not, each row of images has a label of its own, or each image where there are no rows."""

    @property
    def row_length(self) -> int | None:
        """The number of images in a row of a grid; `None` if the images do not form rows."""
        return None

    @property
    def least_codes(self) -> int:
        """The number of stored latents that it needs; 0 if it draws without them."""
        return 1

    def for_kl(self, kl: Tensor) -> Sampler:
        """Return a sampler that knows the posteriors of the run; by default the sampler itself.

        `kl` [*Z] is the mean KL of the run's posteriors from N(0, I) by dimension, in nats. It is
        not called when the run has no such posteriors.
        """
        del kl
        return self

    def captions(self, n: int, codes: Tensor, kl: Tensor | None) -> Sequence[str]:
        """Return a short text for each row of a grid of n images; by default there are none.

        `codes` are those that `draw` gets, and `kl` that of `for_kl`.
        """
        del n, codes, kl
        return ()

    @abstractmethod
    def build(self, latent: LatentSpec) -> LatentSampler:
        """Make an object that draws latents of shape Z."""

    @property
    def own_images(self) -> bool:
        """Whether `pictures` may open images: whether the class has such a method of its own."""
        return type(self).pictures is not Sampler.pictures

    def pictures(self, image: ImageSpec) -> Source | None:
        """Return images to encode. Their posterior means then replace the run's stored latents."""
        del image
        return None


# --- measuring -------------------------------------------------------------------------------


class Features(Component):
    """A network from images to feature vectors, in which metrics compare images."""

    kind: ClassVar[str] = "features"

    @abstractmethod
    def build(self, image: ImageSpec) -> nn.Module:
        """Make a module that is not trained: images [N, C, H, W] in [0, 1] -> features [N, F].

        The features of an image depend on that image alone.
        """

    def title(self) -> str:
        """Return how tables name these features."""
        return self.type


class MetricState(Protocol):
    """The state of a metric, updated with one batch after another.

    One that needs the trained networks also has `use`: see `UsesModel`. One whose values are means
    over images may have `per_image`: see `PerImage`.
    """

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Add a batch: real and generated images, each [B, C, H, W] in [0, 1]."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the values of the metric by name."""
        ...


@runtime_checkable
class PerImage(Protocol):
    """What a metric of pairs builds, if its values are means over the images.

    Then `vgx eval` knows how much the images differ, and so how exact the means are.
    """

    def per_image(self) -> dict[str, Sequence[float]]:
        """Return the value of each image, in the order of the updates, by the name of its mean."""
        ...


class Metric(Component):
    """A measure of generated images against real ones."""

    kind: ClassVar[str] = "metric"
    pairs: ClassVar[bool] = False
    """True: it compares each image with its reconstruction. False: it compares two sets."""
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    """Whether a higher or a lower value is better."""
    gives: ClassVar[Mapping[str, str] | tuple[str, ...]] = ()
    """The names of its values, or names with a line that explains each. If empty, there is one
    value, named after the type and explained by the first line of the docstring."""
    wants: ClassVar[int] = 0
    """The number of images of each side below which a value means little by itself. With fewer,
    `vgx eval` prints a notice."""
    on_request: ClassVar[bool] = False
    """True: `vgx eval` leaves it out unless it is named, because it fetches weights."""
    held_out: ClassVar[bool] = False
    """True, of a `Comparison` of two sets: it also gets the features of images that were held out
    from the training: `compare(real, fake, held_out)`, and `update(real, fake, held_out)`."""

    @abstractmethod
    def build(self, image: ImageSpec) -> MetricState:
        """Make a new, empty state."""

    def why_not(self, image: ImageSpec, real: int, generated: int) -> str:
        """Return why it cannot compare these numbers of images, or an empty text if it can.

        It is called before any image is drawn. For a metric with `pairs`, both are the number of
        pairs.
        """
        del image, real, generated
        return ""


@runtime_checkable
class Comparison(Protocol):
    """A metric that compares features. Metrics with the same features share those of real images.

    The metric is the part itself, with these two attributes beside those of `Metric`.
    """

    features: Features

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare the features of real images [N, F] with those of generated images [M, F]."""
        ...


# --- tracking --------------------------------------------------------------------------------


class OpenTracker(Protocol):
    """An open tracker."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record the values of one step."""
        ...

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Record an image [C, H, W] in [0, 1]."""
        ...

    def close(self) -> None:
        """Finish the recording."""
        ...


class Tracker(Component):
    """A service or file that records a run while it trains, besides the run's own log and images.

    It records each logged step under names such as `losses/l1`, `rates/generator`, `metrics/psnr`,
    and the image grids `samples`, `prior` and `recon`. If a tracker raises an exception, a warning
    is printed, the tracker is not used any more, and the training continues.
    """

    kind: ClassVar[str] = "tracker"
    needs: ClassVar[str | None] = None
    """The name of an optional library that it needs. The run does not start without it."""

    @abstractmethod
    def build(self, run: Path) -> OpenTracker:
        """Open the tracker for the run in this directory; again after each resume.

        Files inside the run directory belong in its folder `trackers`. After a resume or a
        rollback, steps can come again: they replace the recorded values of the same step and of
        all later steps.
        """


KINDS: tuple[type[Component], ...] = (
    Dataset,
    Augmentation,
    Encoder,
    Decoder,
    Discriminator,
    Loss,
    Prior,
    Sampler,
    Features,
    Metric,
    Tracker,
)

# Names of the first edition, which the next release removes.
RENAMED = {"Drawer": "LatentSampler", "Gauge": "MetricState", "Journal": "OpenTracker"}
