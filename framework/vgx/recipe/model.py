"""Recipes: one typed YAML file that names every part and every number of an experiment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vgx.errors import PluginError, RecipeError
from vgx.parts.kinds import (
    STRICT,
    Adaptive,
    Augmentation,
    Dataset,
    Decoder,
    Discriminator,
    Encoder,
    ImageSpec,
    LatentSpec,
    Loss,
    Metric,
    Rate,
    Sampler,
    Tracker,
    validate,
)
from vgx.parts.registry import Registry, discover
from vgx.recipe import limits
from vgx.recipe.yaml import MAX_BYTES, MAX_DEPTH, Fault, Node, read, write

MAX_LINES = 10  # of one message


Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(BaseModel):
    """How one player's weights move."""

    model_config = STRICT

    type: str = "adam"
    """`adam`, or the name of any optimizer that timm offers."""
    lr: Rate = 2e-4
    """Learning rate: a number, or a schedule `{from: 2e-4, to: 0, steps: 5000, shape: cosine}`."""
    warmup: NonNegativeInt = 0
    """Steps over which the rate rises from 0."""
    betas: Annotated[tuple[Decay, ...], Field(min_length=2, max_length=3)] | None = None
    """Decay of the averages of gradient and squared gradient, for optimizers that have them; `null`
    is 0.5 and 0.999 (Radford et al. 2016)."""
    momentum: NonNegativeFloat | None = None
    """For optimizers that have one."""
    weight_decay: NonNegativeFloat = 0.0
    """Applied to all weights of the player, biases and normalisation included."""


class Optimizers(BaseModel):
    """One optimizer for each player."""

    model_config = STRICT

    generator: Optimizer = Optimizer()
    """Moves encoder and decoder."""
    discriminator: Optimizer = Optimizer()
    """Moves the discriminator."""


class Train(BaseModel):
    """How long and in which way the networks are trained."""

    model_config = STRICT

    epochs: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Passes over the data; or give `steps`."""
    steps: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Updates of the generator; or give `epochs`."""
    batch: Annotated[int, Field(ge=1, le=10**6)] = 64
    """Pictures in one minibatch. What is left over at the end of an epoch sits out."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Every random draw of the run is keyed by it."""
    optimizers: Optimizers = Optimizers()
    """One for each player."""
    order: Literal["generator-first", "discriminator-first"] = "generator-first"
    """Who moves first in a step. With the generator first one forward pass serves both."""
    discriminator_steps: PositiveInt = 1
    """Updates of the discriminator in a step, each on a minibatch of its own."""
    fakes: tuple[Literal["recon", "prior"], ...] = ()
    """What the discriminator is shown as fake: reconstructions, decoded N(0, I), or both. By
    default `[recon]` with an encoder and `[prior]` without."""
    clip: PositiveFloat | None = None
    """Largest norm of each player's gradient."""
    accumulate: PositiveInt = 1
    """Pieces that a minibatch is cut into, to save memory; must divide `batch`."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights of encoder and decoder, which sampling then uses."""
    ema_warmup: bool = False
    """Let the decay rise to `ema`, so that the first weights are soon forgotten: after n steps it
    is at most (1 + n) / (10 + n)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks' passes; losses are always float32. `auto` is what a short trial
    finds faster when the training is long, else `fp32`; the run's own recipe says which."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the networks with `torch.compile`. `auto` tries it on a GPU when the training is
    long, else does not; the run's own recipe says which."""
    log_every: PositiveInt = 10
    """Steps between lines of `log.jsonl`."""
    draw_every: PositiveInt = 500
    """Steps between pictures in `samples/`."""
    save_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep: Annotated[int, Field(ge=2)] = 3
    """How many of the newest checkpoints stay."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """A loss, gradient or weight that is not finite ends the run (`stop`), or takes it back to the
    newest checkpoint, from where it tries other draws at half the learning rates (`rollback`); at
    most three times."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise PydanticCustomError("train", "give either 'epochs' or 'steps'")
        if self.batch % self.accumulate:
            raise PydanticCustomError(
                "train",
                "accumulate: {accumulate} does not divide batch: {batch}",
                {"accumulate": self.accumulate, "batch": self.batch},
            )
        return self


class Eval(BaseModel):
    """How a run is judged."""

    model_config = STRICT

    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the pictures that the run is not trained on, chosen by their content: equal pictures
    are on the same side."""
    metrics: tuple[Metric, ...] = ()
    """What is measured, while training and by `vgx eval`."""
    every: PositiveInt | None = None
    """Steps between measurements while training; `null`: there are none."""
    n: Annotated[int, Field(ge=2)] = 256
    """Pictures on each side of a measurement while training, at most."""
    best: str | None = None
    """A number of the metrics, `psnr` or `recall`: the checkpoint of the measurement where it was
    best is kept besides the newest."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.every is not None and not self.metrics:
            raise PydanticCustomError("eval", "every: there is nothing to measure; give metrics")
        if self.best is not None and self.every is None:
            raise PydanticCustomError("eval", "best: nothing is measured on the way; give every")
        numbers = self.better
        if self.best is not None and self.best not in numbers:
            message = "best: the metrics give no '{best}'; there are: {names}"
            given = {"best": self.best, "names": ", ".join(numbers)}
            raise PydanticCustomError("eval", message, given)
        return self

    @property
    def better(self) -> dict[str, str]:
        """Which of two values is better, higher or lower, for each number of the metrics."""
        return {name: m.better for m in self.metrics for name in (m.gives or (m.type,))}


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


class Recipe(BaseModel):
    """A whole experiment, complete and frozen: `load_recipe` of `dump_recipe` gives it back."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """What run directories are called: letters, digits, dots, hyphens and underscores."""
    image: ImageSpec
    """The pictures: `{size: 96}`."""
    latent: Latent
    """Latents of one picture: a number, or `[channels, height, width]` for a spatial one."""
    dataset: Dataset
    """Where the pictures come from."""
    augment: tuple[Augmentation, ...] = ()
    """Random changes to real pictures, in this order."""
    diff_augment: tuple[Augmentation, ...] = ()
    """Random changes to all that the discriminator is shown, real and fake, in this order; the
    gradient passes through them (DiffAugment, Zhao et al. 2020)."""
    encoder: Encoder | None = None
    """Pictures to posteriors; without one the experiment is a GAN."""
    decoder: Decoder
    """Latents to pictures."""
    discriminator: Discriminator | None = None
    """Pictures to verdicts; without one the experiment is a VAE."""
    losses: tuple[Loss, ...]
    """What is minimised, and by whom."""
    sampler: Sampler
    """How `vgx sample` draws latents unless it is told otherwise."""
    train: Train
    """How long and in which way."""
    eval: Eval = Eval()
    """How the run is judged, while it trains and by `vgx eval`."""
    trackers: tuple[Tracker, ...] = ()
    """What follows the run besides its own log, each type once."""
    allow: tuple[str, ...] = ()
    """Findings of the audit that are meant, by the names that it gives them; `*` stands for
    anything: `unreached:decoder.*`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.losses:
            raise PydanticCustomError(
                "losses", "losses: an experiment without a loss learns nothing"
            )
        labels = [loss.label for loss in self.losses]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            message = "two losses are called '{name}': give one of them a name, 'name: ...'"
            raise PydanticCustomError("losses", message, {"name": twice[0]})
        for part in (self.decoder, self.discriminator):
            if part is not None and part.conditional and not self.image.classes:
                message = "the {kind} {type} is told labels: say how many there are, image.classes"
                raise PydanticCustomError("labels", message, {"kind": part.kind, "type": part.type})
        for loss in self.losses:
            against = loss.weight.against if isinstance(loss.weight, Adaptive) else ()
            if lost := [name for name in against if name not in labels or name == loss.label]:
                message = "the weight of '{name}' is against '{lost}', which is no other loss here"
                names = {"name": loss.label, "lost": lost[0]}
                raise PydanticCustomError("losses", message, names)
        if self.encoder is None and "recon" in self.train.fakes:
            raise PydanticCustomError("fakes", "train.fakes names 'recon', but there is no encoder")
        lost = [metric.type for metric in self.eval.metrics if metric.pairs]
        if self.encoder is None and lost:
            message = "eval.metrics: '{name}' compares reconstructions, but there is no encoder"
            raise PydanticCustomError("eval", message, {"name": lost[0]})
        types = [tracker.type for tracker in self.trackers]
        if twice := sorted({name for name in types if types.count(name) > 1}):
            raise PydanticCustomError("trackers", "trackers: '{name}' twice", {"name": twice[0]})
        return self


# What may change when a run goes on; anything else would make another experiment of it.
CHANGEABLE = ("train.epochs", "train.steps", *(f"train.{f}_every" for f in ("log", "draw", "save")))
CHANGEABLE += ("train.on_nonfinite",)
CHANGEABLE += ("eval.every", "eval.n", "trackers")


def load_recipe(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    registry: Registry | None = None,
) -> Recipe:
    """Read a recipe, lay it over what it extends, apply overrides, validate.

    `overrides` are `{"train.steps": 10}` or `["train.steps=10"]`, the values of the second form
    being YAML. Raises `RecipeError` that lists every fault with its place.
    """
    faults: list[Fault] = []
    tree = _read_file(Path(path), faults, ())
    if faults and not tree.value:  # nothing could be read: what else is missing is no news
        lines = [limits.visible(f"{fault.place}: {fault.message}") for fault in faults]
        raise RecipeError("\n".join(lines[:MAX_LINES]))
    if isinstance(overrides, Mapping):
        pairs = [
            (key, Node(_nodes(value, f"--set {key}"), f"--set {key}"))
            for key, value in overrides.items()
        ]
    else:
        pairs = [pair for text in overrides for pair in _split(text, faults)]
    for key, value in pairs:
        if key.count(".") >= MAX_DEPTH:
            faults.append(Fault("--set", f"{limits.short(key)}: nested deeper than {MAX_DEPTH}"))
            continue
        # Lists are indexed as losses.1.weight or losses[1].weight.
        tree = _set(tree, re.sub(r"\[(\d+)\]", r".\1", key).split("."), value, faults)
    return _validated(tree, registry or discover(), faults)


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return write(recipe.model_dump(mode="json"))


def with_part(recipe: Recipe, field: str, fields: dict[str, Any], registry: Registry) -> Recipe:
    """Return the recipe with one part replaced by what `fields` say."""
    tree = _nodes(recipe.model_dump(mode="json"), "the run's recipe")
    tree[field] = Node(_nodes(fields, f"--set {field}"), f"--{field}")
    return _validated(Node(tree, "the run's recipe"), registry, [])


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two recipes, by dotted field."""
    a, b = (dict(_leaves(recipe.model_dump(mode="json"), "")) for recipe in (old, new))
    fields = [field for field in {**a, **b} if a.get(field) != b.get(field)]
    return {field: (a.get(field), b.get(field)) for field in fields}


def _leaves(value: Any, field: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        pairs = [(f"{field}.{key}".lstrip("."), inner) for key, inner in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(f"{field}.{index}", inner) for index, inner in enumerate(value)]
    else:
        return [(field, value)]
    return [leaf for name, inner in pairs for leaf in _leaves(inner, name)]


# --- layers: file over file, --set over both ---------------------------------------------------


def _read_file(path: Path, faults: list[Fault], seen: tuple[Path, ...]) -> Node:
    try:
        with path.open("rb") as file:  # what does not end is read no further
            data = file.read(MAX_BYTES + 1)
        text = data.decode(errors="strict" if len(data) <= MAX_BYTES else "replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise RecipeError(f"{path}: {reason}") from None
    tree, found = read(text, str(path))
    faults += found
    if not isinstance(tree.value, dict):
        if not found:
            faults.append(Fault(tree.place, "a recipe is a mapping: 'name: ...' and so on"))
        return Node({}, tree.place)
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base.value, str) or "\0" in base.value:
        faults.append(Fault(base.place, "extends: should be the path of another recipe"))
        return tree
    target, above = path.parent / base.value, (*seen, path.resolve())
    if wrong := _no_base(target, above):
        faults.append(Fault(base.place, f"extends: {limits.short(base.value)}: {wrong}"))
        return tree
    return _merge(_read_file(target, faults, above), tree)


def _no_base(target: Path, above: tuple[Path, ...]) -> str:
    """Say why a recipe can't be extended; nothing when it can."""
    try:
        if target.resolve() in above:
            return "this goes round in a circle"
        if len(above) > MAX_DEPTH:
            return f"more than {MAX_DEPTH} recipes on top of each other"
        return "" if target.is_file() else "there is no such file"
    except (OSError, ValueError, RuntimeError):
        return "this can't be the name of a file"


def _merge(base: Node, over: Node) -> Node:
    """Lay `over` on `base`: mappings merge, lists and scalars replace, `null` removes."""
    if not isinstance(over.value, dict):
        return over
    items = dict(_as_mapping(base, over.value))
    for key, node in over.value.items():
        if node.value is None:
            items.pop(key, None)
            continue
        items[key] = _merge(items[key], node) if key in items else node
        if (other := {"epochs": "steps", "steps": "epochs"}.get(key)) and other not in over.value:
            items.pop(other, None)
    return replace(over, value=items)


def _as_mapping(base: Node, over: dict[str, Node]) -> dict[str, Node]:
    """Return what a mapping is laid on: another type of part starts afresh."""
    value = {"type": base} if isinstance(base.value, str) else base.value
    if not isinstance(value, dict):
        return {}
    if {"type"} <= over.keys() & value.keys() and over["type"].value != value["type"].value:
        return {}
    return value


def _split(text: str, faults: list[Fault]) -> list[tuple[str, Node]]:
    key, equals, value = text.partition("=")
    place = f"--set {limits.short(key)}"
    if not equals or not key:
        faults.append(Fault(f"--set {limits.short(text)}", "write it as KEY=VALUE"))
        return []
    node, found = read(value, place)
    faults += [Fault(place, fault.message) for fault in found]
    return [(key, Node(_nodes(node.plain(), place), place))]


def _nodes(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): Node(_nodes(inner, place), place, place) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [Node(_nodes(inner, place), place) for inner in value]
    return value


def _set(tree: Node, path: list[str], value: Node, faults: list[Fault]) -> Node:
    """Return the tree with one value laid over it."""
    head, *rest = path
    if isinstance(tree.value, list):
        if head not in map(str, range(len(tree.value))):
            last = len(tree.value) - 1
            message = f"there are items 0 to {last}, not '{limits.short(head)}'"
            faults.append(Fault(value.place, message))
            return tree
        items = list(tree.value)
        items[int(head)] = _set(items[int(head)], rest, value, faults) if rest else value
        return replace(tree, value=items)
    place = tree.place if isinstance(tree.value, dict) else value.place
    if not rest:
        return _merge(tree, Node({head: replace(value, key_place=value.place)}, place))
    children = _as_mapping(tree, {})
    child = children.get(head, Node({}, value.place, value.place))
    inner = replace(_set(child, rest, value, faults), key_place=child.key_place)
    return replace(tree, value={**children, head: inner}, place=place)


# --- what is wrong, and where ------------------------------------------------------------------


def _validated(tree: Node, registry: Registry, faults: list[Fault]) -> Recipe:
    broken = False
    recipe = None
    found = list(limits.unfit(tree))
    faults += found
    try:
        if not found:
            recipe = validate(Recipe, _with_fakes(tree.plain()), registry)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            context = fault.get("ctx", {})
            broken |= bool(context.get("broken")) and not context.get("near")
            faults.append(_fault(tree, fault["loc"], fault))
    if recipe is not None and not faults:
        return recipe
    faults.sort(key=_order)
    lines = [limits.visible(f"{fault.place}: {fault.message}") for fault in dict.fromkeys(faults)]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"... and {len(lines) - MAX_LINES + 1} more"]
    raise (PluginError if broken else RecipeError)("\n".join(lines))


def _order(fault: Fault) -> tuple[str, int, int]:
    """By file, line and column; `--set` before files."""
    place = re.fullmatch(r"(.*):(\d+):(\d+)", fault.place)
    return (place[1], int(place[2]), int(place[3])) if place else ("", 0, 0)


def _with_fakes(data: dict[str, Any]) -> dict[str, Any]:
    """Write out what is shown as fake by default: it depends on whether there is an encoder."""
    train = data.get("train")
    if not isinstance(train, dict) or train.get("fakes"):
        return data
    fakes = ["prior"] if data.get("encoder") is None else ["recon"]
    return {**data, "train": {**train, "fakes": fakes}}


def _fault(tree: Node, loc: tuple[int | str, ...], fault: Any) -> Fault:
    """Find the deepest value on the way; names that pydantic adds for unions are no fields."""
    node, field, key = tree, [], ""
    for step in loc:
        children = node.value
        if isinstance(children, list):
            children = dict(enumerate(children))
        if isinstance(children, dict) and step in children:
            node = children[step]
        elif fault["type"] == "missing" and step == loc[-1]:
            pass
        else:
            continue
        field.append(str(step))
        key = node.key_place
    place = key if fault["type"] == "unknown_field" and key else node.place
    if fault["type"] in ("unknown_part", "ambiguous_part") and isinstance(node.value, dict):
        place = node.value["type"].place
    message = fault["msg"]
    if hint := fault.get("ctx", {}).get("near"):
        message += f"; did you mean '{hint}'?"
    if fault["type"] != "missing" and not isinstance(node.value, dict | list):
        message += f" (here: {limits.short(repr(node.value))})"
    named = ".".join(map(limits.short, field))
    return Fault(place, ": ".join(part for part in (named, message) if part))
