"""Parts that were defined in a cell of a notebook, or in a script: their source as a plugin file.

A run is opened again by other programs, which have no such class. So its source, and the source of
what it uses, become a plugin file that is kept with the run; and the run is trained with the class
of that file, so that what is kept is what was trained.
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import linecache
import symtable
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from vgx.check.audit import parts_of
from vgx.errors import PluginError, VgxError
from vgx.parts.base import Component
from vgx.parts.hooks import PROJECT
from vgx.parts.plugin_file import PluginFile
from vgx.parts.registry import Registry, discover
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe

FILE = "defined_in_python.py"  # in the run's folder `plugins`
PROGRAM = "__main__"  # the module of cells and scripts
PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)
END = """

@vgx.hookimpl
def register_components(register):
    for part in ({parts},):
        register(part)
"""


def keep(recipe: Recipe, registry: Registry) -> tuple[Recipe, Registry]:
    """Return the recipe with the classes of a plugin file, and a registry with that file.

    Only parts of the program itself, of a cell or a script, are taken; other parts are left as they
    are. Raises `PluginError` that says why when the source of one cannot stand alone.
    """
    lost = {
        type(part): place
        for place, part in parts_of(recipe)
        if not registry.keeps(part) and type(part).__module__ == PROGRAM
    }
    if not lost:
        return recipe, registry
    first, place = next(iter(lost.items()))
    named = f"{place}: {first.__name__} cannot be kept with the run"
    try:
        file = PluginFile(_new_name(registry), _source([*lost]).encode())
        kept = discover([*registry.files, file])
        again = load_recipe(recipe.model_dump(mode="json"), (), kept)
    except VgxError as error:
        advice = 'write it to a file, and pass the file: vgx.run(recipe, plugins=["mine.py"])'
        raise PluginError(f"{named}: {error}; {advice}") from error
    if again.model_dump(mode="json") != recipe.model_dump(mode="json"):
        raise PluginError(f"{named}: its source makes another part of the same fields")
    return again, kept


def _new_name(registry: Registry) -> Path:
    """Return a name that no plugin file has: the recipe may be that of another such run."""
    names, path, number = [file.path.name for file in registry.files], Path(FILE), 1
    while path.name in names:
        number += 1
        path = Path(FILE).with_stem(f"{Path(FILE).stem}_{number}")
    return path


def _source(parts: list[type[Component]]) -> str:
    """Return the text of a plugin file with these classes and all that they use."""
    pieces: dict[str, str] = {"vgx": "import vgx"}
    for part in parts:
        _add(part.__name__, part, pieces)
    imports = [text for text in pieces.values() if text.startswith(("import ", "from "))]
    others = [text for text in pieces.values() if text not in imports]
    names = ", ".join(part.__name__ for part in parts)
    doc = '"""Parts that were defined in a notebook or a script; vgx wrote this file."""'
    return "\n\n".join([doc, "\n".join(imports), *others]) + END.format(parts=names)


def _add(name: str, value: Any, pieces: dict[str, str]) -> None:
    """Add the text that makes `name`, after the texts of what it uses."""
    if name in pieces:
        return
    if isinstance(value, ModuleType):
        pieces[name] = _import(name, value)
    elif isinstance(value, type | FunctionType) and value.__module__ == PROGRAM:
        text = _text_of(value)
        pieces[name] = ""  # so that what uses itself ends
        space = vars(sys.modules[PROGRAM])
        for used in _globals(text):
            if used in space:
                _add(used, space[used], pieces)
                for dotted in _dotted(used, space[used], text):
                    pieces[dotted] = f"import {dotted}"
        del pieces[name]
        pieces[name] = text
    elif isinstance(value, PLAIN) and _is_plain(value):
        pieces[name] = f"{name} = {value!r}"
    else:
        pieces[name] = _import_from(name, value)


def _import(name: str, module: ModuleType) -> str:
    if not _is_installed(module):
        raise PluginError(
            f"it uses the module {module.__name__}, which is of no installed package, so another "
            "program may not find it"
        )
    return f"import {module.__name__}" + (f" as {name}" if name != module.__name__ else "")


def _dotted(name: str, value: Any, source: str) -> Iterator[str]:
    """Give the modules inside of a package that a source uses as `name.module`."""
    if not isinstance(value, ModuleType) or value.__name__ != name:
        return
    for node in ast.walk(ast.parse(source)):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if dotted.startswith(f"{name}.") and dotted in sys.modules:
            yield dotted


def _is_installed(module: ModuleType) -> bool:
    """Return whether every program finds a module: of Python, or of an installed package."""
    package, file = module.__name__.partition(".")[0], getattr(module, "__file__", None)
    if package == "vgx" or package in sys.stdlib_module_names:
        return True
    places = (sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    if file and any(Path(file).is_relative_to(place) for place in places):
        return True
    return package in _installed()


def _installed() -> set[str]:
    """Return the names of the packages that installed distributions have, plugins too."""
    plugins = importlib.metadata.entry_points(group=PROJECT)
    names = {point.module.partition(".")[0] for point in plugins}
    return names | {*importlib.metadata.packages_distributions()}


def _import_from(name: str, value: Any) -> str:
    module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None) or name
    there = getattr(sys.modules.get(module or ""), own, None)
    if there is not value or module == PROGRAM or not own.isidentifier():
        raise PluginError(f"it uses {name}, a {type(value).__name__} of this program")
    _import(str(module), sys.modules[str(module)])  # refuses what is not installed
    return f"from {module} import {own}" + (f" as {name}" if name != own else "")


def _is_plain(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _text_of(thing: type | FunctionType) -> str:
    """Return the source of a class or a function, from the cell or the script that defined it."""
    if "<locals>" in thing.__qualname__:
        raise PluginError(f"{thing.__name__} was defined inside of a function")
    for code in _codes(thing):
        whole = "".join(linecache.getlines(code.co_filename))
        try:
            nodes = ast.walk(ast.parse(whole))
        except SyntaxError:  # a cell with commands of IPython
            raise PluginError(
                f"the cell of {thing.__name__} is more than Python; give it a cell of its own"
            ) from None
        for node in nodes:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != thing.__name__:
                continue
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= code.co_firstlineno <= (node.end_lineno or 0):
                # It may stand in an `if` or a `try` of its cell.
                lines = whole.splitlines()[first - 1 : node.end_lineno]
                return textwrap.dedent("\n".join(lines))
    raise PluginError(f"the source of {thing.__name__} is not known")


def _codes(thing: type | FunctionType) -> Iterator[CodeType]:
    """Give the code of a function, or of the methods of a class."""
    functions = [thing] if isinstance(thing, FunctionType) else [*vars(thing).values()]
    for function in functions:
        inner = function.fget if isinstance(function, property) else function
        plain = inspect.unwrap(inner) if callable(inner) else getattr(inner, "__func__", None)
        if isinstance(plain, FunctionType) and plain.__module__ == PROGRAM:
            yield plain.__code__


def _globals(source: str) -> list[str]:
    """Return the names that a source takes from its module, each once."""
    names: list[str] = []
    pending = [symtable.symtable(source, "cell", "exec")]
    while pending:
        table = pending.pop(0)
        pending += table.get_children()
        module = table.get_type() == "module"
        names += [
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced()
            and (symbol.is_global() or (module and not symbol.is_assigned()))
        ]
    return [*dict.fromkeys(names)]
