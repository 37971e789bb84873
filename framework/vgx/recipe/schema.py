"""The JSON Schema of a recipe with every installed part, for completion and checks in editors."""

from __future__ import annotations

import inspect
import json
from typing import Any

from vgx.parts.base import KIND_MARK, Component
from vgx.parts.kinds import KINDS
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return a schema of draft 7, which editors' YAML servers understand."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    for kind in KINDS:
        offered = registry.offers(kind.kind)
        names: list[str] = []
        whole: list[dict[str, str]] = []  # distribution:type, always valid, but not suggested
        for plugin, part in offered:
            twice = sum(part.type == other.type for _, other in offered) > 1
            name = f"{plugin.distribution}:{part.type}" if twice else part.type
            names.append(name)
            pattern = f"^{plugin.distribution}:{part.type}$"
            whole.append({"type": "string", "pattern": pattern})
            told = [{"const": name}, whole[-1]]
            definitions[f"{kind.kind}-{name}"] = _part(part, told, definitions)
        choices = [{"$ref": f"#/$defs/{kind.kind}-{name}"} for name in names]
        definitions[kind.kind] = {"anyOf": [{"enum": names}, *whole, *choices]} if names else False
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Another recipe file that this one is laid over.",
    }
    # A file that extends another may leave out anything, also a part's type.
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
    """Replace the marks of kinds by references; draft 7 reads nothing beside a bare `$ref`."""
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
    # Lists are always replaced as a whole; one part may be laid over another.
    if part.kind in ("augmentation", "loss"):
        schema["required"] = ["type", *schema.get("required", [])]
    else:
        schema.pop("required", None)
    schema["description"] = inspect.cleandoc(part.__doc__ or "")
    return schema


def fields(part: type[Component]) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and meaning of each of a part's fields, as a person says them."""
    rows = []
    for name, field in part.model_json_schema(by_alias=True)["properties"].items():
        default = json.dumps(field["default"]) if "default" in field else "required"
        rows.append((name, _said(field), default, " ".join(field.get("description", "").split())))
    return rows


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _said(schema: dict[str, Any]) -> str:
    """Say what a JSON Schema allows."""
    if KIND_MARK in schema:
        return _a(str(schema[KIND_MARK]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].lower()
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(_said(choice) for choice in choices)
    kind = schema.get("format", schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_said(schema.get('items', {})).removeprefix('a ').removeprefix('an ')}"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in limits.items() if name in schema]
    return " ".join([str(kind), *bounds])
