"""What all kinds of part share: strict fields, a type, and errors that name the nearest word."""

from __future__ import annotations

import difflib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from vgx.files import user_path
from vgx.parts.documented import Documented, described
from vgx.parts.values import STRICT, ImageSpec

KIND_MARK = "vgx-kind"  # in a JSON Schema, stands for any part of a kind
_NOTING = threading.RLock()  # held by the thread whose block notes reads
_TYPE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_Class = type[BaseModel]  # inside a part, `type` is its name in recipes
_T = TypeVar("_T")


class Resolver(Protocol):
    """Finds the class of a part by its kind and type. The registry is a resolver."""

    def part(self, kind: str, name: str) -> type[Component]:
        """Return the class. Raises `PydanticCustomError` for a name that is not known."""
        ...

    def offers(self, kind: str) -> list[tuple[Any, type[Component]]]:
        """Return all classes of a kind, each after its plugin."""
        ...


class Component(Documented):
    """The base of all parts: strict and frozen fields, a kind and a type."""

    model_config = STRICT

    kind: ClassVar[str] = ""
    type: ClassVar[str] = ""
    # The name in the recipe, if it was "distribution:type" and not the type alone.
    _spelling: str = PrivateAttr(default="")

    def __init_subclass__(cls, *, type: str = "", **kwargs: Any) -> None:  # noqa: A002
        """Take the type from the class statement. Parts are final: they have no subclasses."""
        super().__init_subclass__(**kwargs)
        if cls.type:
            raise TypeError(f"{cls.__name__}: a part is final, {cls.type!r} can't be subclassed")
        if type and not _TYPE.fullmatch(type):
            raise TypeError(f"{cls.__name__}: type {type!r} is not lowercase-with-hyphens")
        cls.type = type

    @field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: object) -> object:
        return _replaced(value, Path, user_path)

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": self._spelling or self.type, **handler(self)}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: _Class, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let a field that is annotated with a kind accept every registered part of this kind."""
        if cls.type or not cls.kind:
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.model_dump),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Mark the place of a kind. `vgx schema` replaces the mark by the registered parts."""
        if cls.type or not cls.kind:
            return described(cls, schema, handler)
        return {KIND_MARK: cls.kind}

    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> Component:
        if isinstance(value, cls):
            return value
        fields = {"type": value} if isinstance(value, str) else value
        wrong, kind = "", cls.kind
        if not isinstance(fields, dict):
            wrong = "should be the name of an installed {kind}, or its fields with a 'type'"
        elif not isinstance(fields.get("type"), str):
            wrong = "should name an installed {kind}: add 'type: ...'"
        elif info.context is None:  # a part that is made in Python
            wrong = "should be a {kind}, as this is: vgx.discover().part('{kind}', 'TYPE')()"
        if wrong or not isinstance(fields, dict):
            raise PydanticCustomError("part", wrong, {"kind": kind})
        name = fields["type"]
        fields = {key: inner for key, inner in fields.items() if key != "type"}
        resolver: Resolver = (info.context or {})["resolver"]
        chosen = resolver.part(cls.kind, name)
        part = validate(chosen, fields, resolver)
        if name != chosen.type:
            part._spelling = name  # noqa: SLF001
        return part

    def note(self, image: ImageSpec) -> str:
        """Return a line to print before the training, or an empty string.

        By default it is that of the parts in its fields.
        """
        notes: list[str] = []
        _replaced(self.__dict__, Component, lambda part: notes.append(part.note(image)))
        return " ".join(filter(None, notes))

    def untrained(self) -> Self:
        """Return the same part without pretrained weights, for a model loaded from a checkpoint.

        By default the parts in its fields are without them.
        """
        own = {name: self.__dict__[name] for name in type(self).model_fields}
        others: Any = _replaced(own, Component, lambda part: part.untrained())
        changed = {name: new for name, new in others.items() if new != own[name]}
        return self.model_copy(update=changed) if changed else self


def components_in(value: object) -> Iterator[Component]:
    """Go through all parts in a value: a part, a recipe, or a collection of these."""
    if isinstance(value, Component):
        yield value
    inner: Any = value.__dict__ if isinstance(value, BaseModel) else value
    inner = list(inner.values()) if isinstance(inner, dict) else inner
    for each in inner if isinstance(inner, list | tuple) else ():
        yield from components_in(each)


def _replaced(value: object, kind: type[_T], change: Callable[[_T], object]) -> object:
    """Return the value with what `change` gives in place of all of a kind, in collections too."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        inside = [_replaced(inner, kind, change) for inner in value]
        return tuple(inside) if isinstance(value, tuple) else inside
    if isinstance(value, dict):
        return {key: _replaced(inner, kind, change) for key, inner in value.items()}
    return value


@contextmanager
def noting_reads() -> Iterator[set[tuple[int, str]]]:
    """Note which attributes of parts are read inside the block: pairs of `id(part)` and name.

    The audit reports fields of a recipe that nothing reads. Parts note their reads only inside of
    the block, because it makes each read slower. A block in another thread waits for this one.
    """
    reads: set[tuple[int, str]] = set()

    def noted(self: object, name: str) -> Any:
        reads.add((id(self), name))
        return object.__getattribute__(self, name)

    with _NOTING:
        outer = Component.__getattribute__
        Component.__getattribute__ = noted  # type: ignore[method-assign]
        try:
            yield reads
        finally:
            Component.__getattribute__ = outer  # type: ignore[method-assign]


class BrokenError(Exception):
    """A part does not keep the contract of its kind."""

    def __init__(self, part: Component, message: str) -> None:
        """Keep the part, so that the message to the user can name it."""
        super().__init__(message)
        self.part = part


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], fields: dict[str, Any], resolver: Resolver) -> M:
    """Make a `model` of plain data, in strict JSON mode: a list is a tuple, but "5" is no number.

    Raises `pydantic.ValidationError` with all errors at once. The error for an unknown field names
    the fields that are allowed.
    """
    try:
        return model.model_validate_json(json.dumps(fields), context={"resolver": resolver})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        faults = [_with_names(model, fault, resolver) for fault in errors]
        raise ValidationError.from_exception_data(model.__name__, faults) from None


def _with_names(model: type[BaseModel], fault: Any, resolver: Resolver) -> InitErrorDetails:
    """Add names to an error of pydantic: allowed and near ones, and parts that have the field."""
    place, kind, context = fault["loc"], fault["type"], fault.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        kind = "unknown_field"
        allowed = _names(model, place[:-1])
        context = {"near": near(str(place[-1]), allowed)}
        if issubclass(model, Component) and len(place) == 1:
            parts = [part for _, part in resolver.offers(model.kind)]
            context["others"] = [part.type for part in parts if place[0] in fields_of(part)]
            # No field of the model, but written like one.
            context["near"] = near(str(place[-1]), ["type", *allowed])
        message = f"unknown field; allowed: {', '.join(allowed) or 'none'}"
    elif kind == "frozen_instance":  # its __init__ sets an attribute
        message = "a part has fields, no __init__: write 'x: float = 1.0' and a docstring below it"
    else:
        message = fault["msg"]
        if "expected" in context:  # a Literal: the names stand in quotes
            names = re.findall(r"'([^']*)'", str(context["expected"]))
            context = {"near": near(str(fault["input"]), names)}
    kept = {key: context[key] for key in ("near", "others", "broken") if key in context}
    return InitErrorDetails(
        type=PydanticCustomError(kind, message, kept), loc=place, input=fault["input"]
    )


def _names(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """Return the names of the fields at `place` below `model`, as they are written in YAML."""
    for step in place:
        fields = getattr(model, "model_fields", {}) or getattr(model, "__pydantic_fields__", {})
        if step in fields:
            model = fields[step].annotation
        elif isinstance(step, str):
            model = next((m for m in members(model) if m.__name__.lower() == step.lower()), model)
    return list(next(filter(None, map(fields_of, members(model))), {}))


def fields_of(model: type) -> dict[str, Any]:
    """Return the annotations of a model's fields, by the names that are written in YAML."""
    if issubclass(model, BaseModel):
        fields = model.model_fields.items()
        return {field.alias or name: field.annotation for name, field in fields}
    return dict.fromkeys(model.__dataclass_fields__) if is_dataclass(model) else {}


def members(annotation: Any) -> Iterator[type]:
    """Give the classes in an annotation such as `tuple[A | B, ...]`."""
    parts = getattr(annotation, "__args__", None) or (annotation,)
    for part in parts:
        if isinstance(part, type):
            yield part
        elif part is not annotation:
            yield from members(part)


def near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the most similar of `names`, or an empty string if none is as similar as `cutoff`.

    Case and punctuation do not count: `resnet_18` and `ResNet18` are `resnet18`. Of equally similar
    names it is the one with the most letters in common in any order: `aae` for `aea`, not `vae`.
    """
    known, letters = {_letters(each): each for each in reversed(list(names))}, _letters(name)

    def likeness(each: str) -> tuple[float, float]:
        compared = difflib.SequenceMatcher(None, each, letters)
        return compared.ratio(), compared.quick_ratio()

    close = difflib.get_close_matches(letters, known, 5, cutoff)
    return known[max(close, key=likeness)] if close else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
