"""From files, `extends` and `--set` to a recipe, and every error with its place."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ValidationError

from vgx.errors import Notice, PluginError, RecipeError, StorageError
from vgx.files import read_file, user_path
from vgx.output import short
from vgx.parts.base import near, validate
from vgx.parts.registry import Registry, discover
from vgx.recipe import library, yaml
from vgx.recipe.faults import TEXT, fault_of, find, message_of, type_of
from vgx.recipe.model import Recipe
from vgx.recipe.places import dataset_at
from vgx.recipe.renamed import rename_recipe, renamed_in
from vgx.recipe.yaml import Fault, Node

# Fields of which a recipe has one: it takes the place of the other one below.
EITHER = {
    "": (("discriminator", "discriminators"), ("discriminators", "discriminator")),
    "train": (("epochs", "steps"), ("steps", "epochs")),
}


class Described(Protocol):
    """What has a recipe: a run, or a model."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        ...


AnyRecipe = Recipe | Described | Mapping[str, Any] | str | Path


def load_recipe(
    path: AnyRecipe,
    overrides: Mapping[str, Any] | Sequence[str] | str = (),
    registry: Registry | None = None,
    data: str | Path | None = None,
    *,
    moved: bool = False,
) -> Recipe:
    """Read a recipe, merge it with the recipes that it extends, apply overrides and validate.

    `path` is a file, or the name of a recipe that comes with vgx, such as "quickstart"; in Python
    also a dictionary of a recipe's fields, in which `extends` may name another, a `Recipe`, or the
    run or model that has one.
    `overrides` are `{"train.steps": 10}` or `["train.steps=10"]`. In the second form the values are
    YAML; a field that takes a text or a path gets the text as it stands. Their order does not
    matter, but of two values for one field the last counts. `data` replaces the data set: a folder
    of images, or another place that an installed data set opens. With `moved` it is the place where
    the recipe's own data set lies now, whose other fields stay. Raises `RecipeError` that lists
    all errors with their places.
    """
    faults: list[Fault] = []
    if not isinstance(path, str | Path | Mapping | Recipe):
        path = _recipe_of(path)
    if isinstance(path, str | Path):
        tree = _read_file(library.find_recipe(user_path(path)), faults, ())
    else:
        tree = _extended(_node(path, "the recipe"), Path(), faults, ())
    if faults and not tree.value:  # nothing could be read, so "field required" would be no help
        raise RecipeError(message_of(faults))
    # Parts that were given as objects need not be installed.
    registry = (registry or discover()).with_parts((path, overrides))
    if data is not None:
        dataset = replace(_node(dataset_at(data, registry), "--data"), key_place="--data")
        if moved and "dataset" in tree.value:
            dataset = _merge(tree.value["dataset"], dataset, "dataset")
        tree = replace(tree, value={**tree.value, "dataset": dataset})
    if isinstance(overrides, Mapping):
        settings = [(key, _node(value, f"--set {key}")) for key, value in overrides.items()]
    else:
        settings = list(_parsed(overrides, faults))
    # Lists are indexed as losses.1.weight or losses[1].weight.
    settings = [(re.sub(r"\[(\d+)\]", r".\1", key), value) for key, value in settings]
    # A part comes before its fields and its type before the others, because it removes them.
    settings.sort(key=lambda setting: (setting[0].count("."), not setting[0].endswith(".type")))
    for key, value in settings:
        if key.count(".") >= yaml.MAX_DEPTH:
            faults.append(Fault("--set", f"{short(key)}: nested deeper than {yaml.MAX_DEPTH}"))
            continue
        tree = _set(tree, key.split("."), value, faults)
    return _validated(tree, registry, faults)


def _recipe_of(value: Any) -> Recipe:
    recipe = getattr(value, "recipe", None)
    if not isinstance(recipe, Recipe):
        message = "give a name, a path, a dictionary, a Recipe or a run"
        raise RecipeError(f"{type(value).__name__}: {message}")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return yaml.write(recipe.model_dump(mode="json"))


def parse_settings(texts: Iterable[str]) -> dict[str, Node]:
    """Return keys and values of texts such as "of=4", for `with_part`.

    Raises `RecipeError` that lists all texts that are not KEY=VALUE.
    """
    faults: list[Fault] = []
    settings = dict(_parsed(texts, faults))
    if faults:
        raise RecipeError(message_of(faults))
    return settings


def with_part(
    recipe: Recipe, field: str, fields: dict[str, Any], registry: Registry, option: str = ""
) -> Recipe:
    """Return the recipe with the part in `field` replaced by the part that `fields` describe.

    `option` is what describes all of it on the command line, for messages. Without one the type is
    that of `--FIELD`, and the other fields are those of `--set`.
    """
    tree = _node(recipe.model_dump(mode="json"), "the run's recipe")
    given = {name: _node(value, option or f"--set {field}") for name, value in fields.items()}
    if "type" in given:
        given["type"] = replace(given["type"], place=option or f"--{field}")
    part = Node(given, option or f"--{field}", option or f"--set {field}")
    return _validated(replace(tree, value={**tree.value, field: part}), registry, [])


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the old and the new value of each dotted field in which two recipes differ."""
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


# --- layers: a file over the file that it extends, and --set over both -------------------------


def _read_file(path: Path, faults: list[Fault], seen: tuple[Path, ...]) -> Node:
    try:
        text = read_file(path, yaml.MAX_BYTES).decode()
    except StorageError as error:
        advice = f"; images are given with: --data {path}" if path.is_dir() else ""
        raise RecipeError(f"{error}{advice}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        advice = f"; a value is changed with: --set {path}" if "=" in path.name else ""
        if isinstance(error, FileNotFoundError):
            names = "" if path.suffix else "; `vgx recipes` lists those that come with vgx"
            advice = advice or library.meant(path) or names
        raise RecipeError(f"{path}: {reason}{advice}") from None
    tree, unread = yaml.read(text, str(path))
    faults += unread
    if not isinstance(tree.value, dict):
        if not unread:
            faults.append(Fault(tree.place, "a recipe is a mapping: 'name: ...' and so on"))
        return Node({}, tree.place)
    return _extended(tree, path.parent, faults, (*seen, path.resolve()))


def _extended(tree: Node, folder: Path, faults: list[Fault], above: tuple[Path, ...]) -> Node:
    """Lay a recipe on the one that it extends, whose path is relative to `folder`."""
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base.value, str) or "\0" in base.value:
        faults.append(Fault(base.place, "extends: should be the path or name of another recipe"))
        return tree
    target = library.find_recipe(user_path(base.value), folder)
    if wrong := _no_base(target, above):
        faults.append(Fault(base.place, f"extends: {short(base.value)}: {wrong}"))
        return tree
    return _merge(_read_file(target, faults, above), tree)


def _no_base(target: Path, above: tuple[Path, ...]) -> str:
    """Return why a recipe cannot be extended, or an empty string."""
    try:
        if target.resolve() in above:
            return "this goes round in a circle"
        if len(above) > yaml.MAX_DEPTH:
            return f"more than {yaml.MAX_DEPTH} recipes on top of each other"
        return "" if target.is_file() else "there is no such file" + library.meant(target)
    except (OSError, ValueError, RuntimeError):
        return "this can't be the name of a file"


def _merge(base: Node, over: Node, field: str = "") -> Node:
    """Lay `over` on `base`: mappings merge, lists and scalars replace, `null` removes.

    `field` is the dotted field in which both stand.
    """
    if not isinstance(over.value, dict):
        return over
    items = dict(_as_mapping(base, over.value, field))
    for one, other in EITHER.get(field, ()):
        if one in over.value and over.value[one].value is not None:
            items.pop(other, None)
    named = field == "dataset" and "path" in over.value and over.value["path"].value is not None
    # A fallback belongs to the path beside it: images that a user names are never replaced.
    if named and "fallback" in items and not items["fallback"].place.startswith("--set"):
        del items["fallback"]
    for key, node in over.value.items():
        if node.value is None:
            items.pop(key, None)
        else:
            inner = f"{field}.{key}".lstrip(".")
            items[key] = _merge(items[key], node, inner) if key in items else node
    return replace(over, value=items)


def _as_mapping(base: Node, over: dict[str, Node], field: str) -> dict[str, Node]:
    """Return the mapping in `base`, or an empty one if `over` is a part of another type."""
    value = {"type": base} if isinstance(base.value, str) else base.value
    if not isinstance(value, dict):
        return {}
    known = {"type": Node("adam", "")} | value if field.startswith("train.optimizers.") else value
    if {"type"} <= over.keys() & known.keys() and over["type"].value != known["type"].value:
        return {}
    return value


def _parsed(texts: str | Iterable[str], faults: list[Fault]) -> Iterator[tuple[str, Node]]:
    """Give key and value of each text "KEY=VALUE"; add those that cannot be read to `faults`."""
    for text in [texts] if isinstance(texts, str) else texts:
        key, equals, value = text.partition("=")
        if equals and key:
            yield key, yaml.read_setting(value, f"--set {short(key)}")
        else:
            faults.append(Fault(f"--set {short(text)}", "write it as KEY=VALUE"))


def _node(value: Any, place: str) -> Node:
    """Return data as a tree in which all values have the same place.

    Raises `RecipeError` for a value of a type that no recipe has.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, BaseModel):  # a part
        value = value.model_dump(mode="json")
    elif isinstance(value, PurePath):
        value = str(value)
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return Node({str(key): _node(inner, place) for key, inner in value.items()}, place, place)
    if isinstance(value, list | tuple):
        return Node([_node(inner, place) for inner in value], place, place)
    if value is not None and not isinstance(value, str | int | float):
        raise RecipeError(f"{place}: a recipe has no values of type {type(value).__name__}")
    return Node(value, place, place)


def _set(tree: Node, path: list[str], value: Node, faults: list[Fault], field: str = "") -> Node:
    """Return the tree with one value laid over the value at `path`; `field` is where it stands."""
    head, *rest = path
    inner = f"{field}.{head}".lstrip(".")
    if isinstance(tree.value, list):
        if head not in map(str, range(len(tree.value))):
            last = len(tree.value) - 1
            message = f"there are items 0 to {last}, not '{short(head)}'"
            names = [type_of(item) for item in tree.value]
            if similar := near(head, names):
                right = ".".join([field, str(names.index(similar)), *rest])
                message += f"; did you mean '{short(right)}'?"
            elif head == str(last + 1):
                message += f"; to add one, set the whole list: --set '{field}=[...]'"
            faults.append(Fault(value.place, message))
            return tree
        items = list(tree.value)
        items[int(head)] = _set(items[int(head)], rest, value, faults, inner) if rest else value
        return replace(tree, value=items)
    place = tree.place if isinstance(tree.value, dict) else value.place
    if not rest:
        return _merge(tree, Node({head: replace(value, key_place=value.place)}, place), field)
    children = _as_mapping(tree, {}, field)
    child = children.get(head, Node({}, value.place, value.place))
    changed = replace(_set(child, rest, value, faults, inner), key_place=child.key_place)
    return replace(tree, value={**children, head: changed}, place=place)


# --- errors and their places -------------------------------------------------------------------


def _validated(tree: Node, registry: Registry, faults: list[Fault]) -> Recipe:
    """Return the recipe in `tree`. Raises an error that lists `faults` and all further faults."""
    if unfit := list(yaml.unfit(tree)):  # a parser of numbers or texts would stumble over these
        raise RecipeError(message_of([*faults, *unfit]))
    try:
        recipe = validate(Recipe, _with_fakes(_with_new_names(tree.plain())), registry)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        texts = [find(tree, fault["loc"])[0] for fault in errors if fault["type"] in TEXT]
        if settings := [node for node in texts if node.text and not isinstance(node.value, str)]:
            return _validated(_as_texts(tree, settings), registry, faults)
        message = message_of([*faults, *(fault_of(tree, fault, registry) for fault in errors)])
        contexts = [fault.get("ctx", {}) for fault in errors]
        broken = any(each.get("broken") and not each.get("near") for each in contexts)
        raise (PluginError if broken else RecipeError)(message) from None
    if faults:
        raise RecipeError(message_of(faults))
    return recipe


def _with_fakes(data: dict[str, Any]) -> dict[str, Any]:
    """Write out the default of `train.fakes`, which depends on whether there is an encoder."""
    train = data.get("train")
    if not isinstance(train, dict) or train.get("fakes"):
        return data
    fakes = ["prior"] if data.get("encoder") is None else ["recon"]
    return {**data, "train": {**train, "fakes": fakes}}


def _with_new_names(data: dict[str, Any]) -> dict[str, Any]:
    """Give metrics their new names, with a notice for each old one."""
    for old, new in renamed_in(data).items():
        message = f"eval.metrics: {old} is in Inception's features alone; in others it is {new} now"
        warnings.warn(f"{message}: write type: {new}", Notice, stacklevel=2)
    return rename_recipe(data)


def _as_texts(node: Node, settings: list[Node]) -> Node:
    """Return the tree with these settings as the texts that were given: `007`, not 7."""
    if any(node is setting for setting in settings):
        return replace(node, value=node.text)
    if isinstance(node.value, dict):
        items = {key: _as_texts(inner, settings) for key, inner in node.value.items()}
        return replace(node, value=items)
    if isinstance(node.value, list):
        return replace(node, value=[_as_texts(inner, settings) for inner in node.value])
    return node
