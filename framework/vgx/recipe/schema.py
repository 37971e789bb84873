"""The JSON Schema of a recipe with all installed parts, for completion and checks in editors."""

from __future__ import annotations

import inspect
import json
from typing import Any

from vgx.parts.base import KIND_MARK, Component
from vgx.parts.kinds import KINDS
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return a JSON Schema of draft 7, which the YAML servers of editors understand."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    for kind in KINDS:
        offered = registry.offers(kind.kind)
        names: list[str] = []
        full: list[dict[str, str]] = []  # distribution:type, valid but not suggested
        for plugin, part in offered:
            twice = sum(part.type == other.type for _, other in offered) > 1
            name = f"{plugin.distribution}:{part.type}" if twice else part.type
            names.append(name)
            pattern = f"^{plugin.distribution}:{part.type}$"
            full.append({"type": "string", "pattern": pattern})
            allowed = [{"const": name}, full[-1]]
            definitions[f"{kind.kind}-{name}"] = _part(part, allowed, definitions)
        choices = [{"$ref": f"#/$defs/{kind.kind}-{name}"} for name in names]
        definitions[kind.kind] = {"anyOf": [{"enum": names}, *full, *choices]} if names else False
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Another recipe file, whose values this one changes or adds to.",
    }
    # A recipe that extends another may leave out any field, also the type of a part.
    schema["if"] = {"required": ["extends"]}
    schema["then"] = {}
    definitions["ImageSpec"].pop("required")
    needs = {name: ["type"] for name in schema["properties"] if name in {k.kind for k in KINDS}}
    objects = {
        name: {"if": {"type": "object"}, "then": {"required": required}}
        for name, required in {**needs, "image": ["size"]}.items()
    }
    schema["else"] = {"required": schema.pop("required"), "properties": objects}
    referring: dict[str, Any] = _with_references(schema)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **referring}


def _with_references(value: Any) -> Any:
    """Replace the marks of kinds by references; draft 7 ignores keys beside a bare `$ref`."""
    if isinstance(value, list):
        return [_with_references(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _with_references(item) for key, item in value.items() if key != KIND_MARK}
    if KIND_MARK in value:
        inner["allOf"] = [{"$ref": f"#/$defs/{value[KIND_MARK]}"}]
    return inner


def _part(
    part: type[Component], names: list[dict[str, str]], definitions: dict[str, Any]
) -> dict[str, Any]:
    schema = part.model_json_schema(by_alias=True)
    definitions.update(schema.pop("$defs", {}))
    schema["properties"] = {"type": {"anyOf": names}, **schema.get("properties", {})}
    # The items of a list are never merged, so they need a type. A single part may be merged.
    if part.kind in ("augmentation", "loss"):
        schema["required"] = ["type", *schema.get("required", [])]
    else:
        schema.pop("required", None)
    schema["description"] = inspect.cleandoc(part.__doc__ or "")
    return schema


def fields(part: type[Component]) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and meaning of each field of a part, as texts for a table."""
    rows = []
    for name, field in part.model_json_schema(by_alias=True)["properties"].items():
        default = json.dumps(field["default"]) if "default" in field else "required"
        meaning = " ".join(field.get("description", "").split())
        rows.append((name, type_in_words(field), default, meaning))
    return rows


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def type_in_words(schema: dict[str, Any]) -> str:
    """Return in words which values a JSON Schema allows: "integer > 0 or null"."""
    if KIND_MARK in schema:
        return _with_article(str(schema[KIND_MARK]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].lower()
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(type_in_words(choice) for choice in choices)
    kind = schema.get("format", schema.get("type", "anything"))
    if kind == "array":
        items = type_in_words(schema.get("items", {}))
        return "list of " + items.removeprefix("a ").removeprefix("an ")
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in limits.items() if name in schema]
    return " ".join([str(kind), *bounds])
