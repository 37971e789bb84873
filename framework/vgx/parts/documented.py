"""Models whose fields are documented by the docstrings below them."""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
import tokenize
from typing import Any, ClassVar

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Documented(BaseModel):
    """A model whose JSON Schema describes each field by the docstring below it.

    pydantic does the same with `use_attribute_docstrings`, but it reads the source of each class
    while the class is made, which takes a third of a second for all parts of vgx, at each start.
    Here the source is read when somebody asks for it.
    """

    _written_at: ClassVar[tuple[str, int]] = ("", 0)
    _docstrings: ClassVar[dict[str, str]] = {}  # of the class alone, when they have been read

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the file and the line of the class statement."""
        super().__init_subclass__(**kwargs)
        frame = inspect.currentframe()
        while frame and frame.f_globals.get("__name__") != cls.__module__:
            frame = frame.f_back
        cls._written_at = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the fields."""
        return described(cls, schema, handler)


def described(
    cls: type[Documented], schema: CoreSchema, handler: GetJsonSchemaHandler
) -> dict[str, Any]:
    """Return the JSON Schema of a class, with the docstrings of its fields."""
    made = handler(schema)
    properties = handler.resolve_ref_schema(made).get("properties", {})
    for name, text in field_docstrings(cls).items():
        properties[cls.model_fields[name].alias or name].setdefault("description", text)
    return made


def field_docstrings(cls: type[Documented]) -> dict[str, str]:
    """Return the docstrings of the fields by name, those of base classes too."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if issubclass(base, Documented) and not found.keys() >= cls.model_fields.keys():
            if "_docstrings" not in vars(base):
                base._docstrings = _written_in(base)  # noqa: SLF001
            found = base._docstrings | found  # noqa: SLF001
    return {name: found[name] for name in cls.model_fields if name in found}


def _written_in(cls: type[Documented]) -> dict[str, str]:
    """Return the docstrings that stand below the fields in a class statement.

    There are none when its file is gone, or was changed so that the class is no longer there.
    """
    file, line = cls._written_at
    lines = linecache.getlines(file)[line - 1 :]
    indented = bool(lines) and lines[0][0].isspace()
    try:
        source = "".join(["if True:\n" * indented, *inspect.getblock(lines)])
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return {}
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    body = next((node.body for node in classes[:1] if node.name == cls.__name__), [])
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(below.value.value, str)
    }
