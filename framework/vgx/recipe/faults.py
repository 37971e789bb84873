"""The errors of a recipe: pydantic's with their places, and what may have been meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic_core import PydanticCustomError

from vgx.output import short, visible
from vgx.parts.base import Component, fields_of, members, near
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe
from vgx.recipe.yaml import Fault, Node

MAX_LINES = 10  # of one message
TEXT = ("string_type", "path_type")  # pydantic's errors of fields that take a text


def message_of(faults: list[Fault]) -> str:
    """Return one line for each fault, `--set` before files, and at most `MAX_LINES` lines."""
    ordered = dict.fromkeys(sorted(faults, key=_order))
    lines = [visible(f"{fault.place}: {fault.message}") for fault in ordered]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"... and {len(lines) - MAX_LINES + 1} more"]
    return "\n".join(lines)


def _order(fault: Fault) -> tuple[str, int, int]:
    place = re.fullmatch(r"(.*):(\d+):(\d+)", fault.place)
    return (place[1], int(place[2]), int(place[3])) if place else ("", 0, 0)


def fault_of(tree: Node, fault: Any, registry: Registry) -> Fault:
    """Return an error of pydantic with its place in the file, that of the deepest value."""
    missing = fault["type"] == "missing"
    node, field = find(tree, fault["loc"], missing=missing)
    named = node  # the value to name: of an unknown part its type
    if fault["type"] in ("unknown_part", "ambiguous_part") and isinstance(node.value, dict):
        named = node.value["type"]
    if named.unread:
        return Fault(named.place, named.unread)
    unknown = fault["type"] == "unknown_field" and named.key_place
    place = named.key_place if unknown else named.place
    message = fault["msg"] + _advice(tree, field, fault, registry)
    if not missing and not isinstance(node.value, dict | list):
        quotes = "; quotes make it a text" if fault["type"] in TEXT else ""
        message += f" (here: {short(repr(node.value))}{quotes})"
    # Spaces at the ends of a name are seen only between quotes.
    shown = field if field == field.strip() else repr(field)
    return Fault(place, ": ".join(part for part in (shown, message) if part))


def find(tree: Node, loc: tuple[int | str, ...], *, missing: bool = False) -> tuple[Node, str]:
    """Return the deepest value on the way `loc` of an error of pydantic, and its dotted field.

    A step of `loc` that is no field is the name of a union's member, which pydantic inserts; with
    `missing` the last one is a field that the recipe lacks.
    """
    node, field = tree, []
    for step in loc:
        children = node.value
        if isinstance(children, list):
            children = dict(enumerate(children))
        if isinstance(children, dict) and step in children:
            node = children[step]
        elif not (missing and step == loc[-1]):
            continue
        field.append(str(step))
    return node, ".".join(map(short, field))


def _advice(tree: Node, field: str, fault: Any, registry: Registry) -> str:
    """Return what may be meant by a name that is not known, to append to the message."""
    part, _, name = field.rpartition(".")
    context = fault.get("ctx", {})
    if others := context.get("others"):
        own = "; for images of your own: --data PATH" if field == "dataset.path" else ""
        return f"; those with {part}.type {' or '.join(others)} have it{own}"
    hint = context.get("near")
    # A field with nearly this name in the same place is more likely meant than one elsewhere.
    if fault["type"] == "unknown_field" and not near(name, [hint], 0.8):
        hint = _elsewhere(tree, field, registry, 1.0 if hint else 0.7) or hint
    return f"; did you mean '{hint}'?" if hint else ""


def _elsewhere(tree: Node, field: str, registry: Registry, cutoff: float) -> str:
    """Return the field of the recipe whose name is nearest to that of an unknown field."""
    parent, _, name = field.rpartition(".")
    fields = list(_fields(Recipe, tree, "", registry))
    # Of fields that are as near, those of the training are meant more often: seed, batch.
    fields.sort(
        key=lambda known: (
            not known.startswith(parent), known.count("."), not known.startswith("train.")
        )
    )  # fmt: skip
    nearest = near(name, [known.rpartition(".")[2] for known in fields], cutoff)
    return next((known for known in fields if known.rpartition(".")[2] == nearest), "")


def _fields(annotation: Any, node: Node | None, path: str, registry: Registry) -> Iterator[str]:
    """Give the dotted names of all fields below `path`, for the parts that the recipe has."""
    value = node.value if node else None
    for model in members(annotation):
        if issubclass(model, Component) and not model.type:  # any part of a kind
            items = enumerate(value) if isinstance(value, list) else [("", node)]
            for i, item in items:
                with suppress(PydanticCustomError):
                    part = registry.part(model.kind, type_of(item))
                    yield from _fields(part, item, f"{path}.{i}".rstrip("."), registry)
            continue
        for name, inner in fields_of(model).items():
            field = f"{path}.{name}".lstrip(".")
            yield field
            child = value.get(name) if isinstance(value, dict) else None
            yield from _fields(inner, child, field, registry)


def type_of(part: Node | None) -> str:
    """Return the type of a part: its value, or the `type` among its fields."""
    value = part.plain() if part else None
    return str(value.get("type") if isinstance(value, dict) else value)
