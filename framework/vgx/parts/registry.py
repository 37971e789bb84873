"""Which parts are installed, and which plugin each comes from.

`discover` makes a registry from the installed distributions and the `--plugin` files. The registry
is passed to the functions that need it. If a plugin fails, the failure is recorded and not raised:
it is an error only for a recipe that names a part which no other plugin has.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy
from pydantic_core import PydanticCustomError

from vgx.errors import PluginError, by_user
from vgx.parts import hooks, plugin_file
from vgx.parts.base import Component, components_in, near
from vgx.parts.kinds import KINDS
from vgx.parts.plugin_file import PluginFile


@dataclass(frozen=True)
class Plugin:
    """One plugin: its distribution, its parts, and why it failed to load, if it did."""

    distribution: str  # the name to write before the colon in "distribution:type"
    version: str
    name: str  # the entry point's name, or the file's
    parts: tuple[type[Component], ...] = ()
    failure: str = ""  # empty when it loaded
    hook: pluggy.HookRelay | None = field(default=None, compare=False, repr=False)
    file: PluginFile | None = field(default=None, compare=False)  # if it is one

    @property
    def title(self) -> str:
        """Name and distribution, for messages; a file has one name."""
        if self.name == self.distribution:
            return self.name
        return f"{self.name} of {self.distribution}"

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that it implements."""
        if self.hook is None:
            return []
        return [name for name in hooks.HOOKS if getattr(self.hook, name).get_hookimpls()]

    def call(self, name: str, **arguments: Any) -> str:
        """Call one hook, if the plugin implements it; return the error that it raised, or ""."""
        return failure_of(lambda: getattr(self.hook, name)(**arguments)) if self.hook else ""


@dataclass(frozen=True)
class Registry:
    """All plugins, in an order that does not depend on the order of their installation."""

    plugins: tuple[Plugin, ...]

    @property
    def files(self) -> list[PluginFile]:
        """The plugin files."""
        return [plugin.file for plugin in self.plugins if plugin.file is not None]

    def offers(self, kind: str) -> list[tuple[Plugin, type[Component]]]:
        """Return all parts of a kind with their plugins, sorted by type."""
        pairs = [(p, part) for p in self.plugins for part in p.parts if part.kind == kind]
        return sorted(pairs, key=lambda pair: (pair[1].type, pair[0].distribution))

    def part(self, kind: str, name: str) -> type[Component]:
        """Return the class for a name in a recipe: "type" or "distribution:type".

        Raises `PydanticCustomError`, to which the recipe adds the place.
        """
        distribution, _, wanted = name.rpartition(":")
        matches = [
            (plugin, part)
            for plugin, part in self.offers(kind)
            if part.type == wanted and distribution in ("", plugin.distribution)
        ]
        if len(matches) == 1:
            return matches[0][1]
        if matches:
            names = " or ".join(f"'{plugin.distribution}:{wanted}'" for plugin, _ in matches)
            raise PydanticCustomError(
                "ambiguous_part",
                "more than one plugin offers the {kind} '{wanted}': write {names}",
                {"kind": kind, "wanted": wanted, "names": names},
            )
        allowed = sorted({part.type for _, part in self.offers(kind)})
        broken = [plugin for plugin in self.plugins if plugin.failure]
        # The name may be that of a part of a broken plugin: then only a very near name is a typo.
        similar = near(wanted, allowed, 0.75 if broken else 0.6)
        of_broken = distribution in [plugin.distribution for plugin in broken]
        hint = "".join(
            f"; plugin {p.name} of {p.distribution} {p.version} did not load: {p.failure}"
            for p in broken
        )
        raise PydanticCustomError(
            "unknown_part",
            "no installed {kind} is called '{wanted}'; there are: {names}{hint}",
            {
                "kind": kind,
                "wanted": name,
                "names": ", ".join(allowed) or "none",
                "hint": hint,
                "near": "" if of_broken else similar,
                "broken": bool(broken),
            },
        )

    def owner(self, part: type[Component]) -> Plugin:
        """Return the plugin that a part comes from; an empty one if no plugin offers the class."""
        owners = (plugin for plugin in self.plugins if _among(part, plugin.parts))
        return next(owners, Plugin(part.__module__, "(no plugin)", part.__module__))

    def with_parts(self, value: object) -> Registry:
        """Return a registry that has the classes of all parts in a value too, such as a recipe.

        A class of a plugin file brings its file. Others become parts of no plugin. Raises
        `PluginError` for a file of which there is another one with the same name.
        """
        plugins, new = self.plugins, list[type[Component]]()
        for part in dict.fromkeys(map(type, components_in(value))):
            offered = (*new, *(each for plugin in plugins for each in plugin.parts))
            if _among(part, offered):
                continue
            if file := plugin_file.file_of(part.__module__):
                plugins = (*plugins, _of_file(file, plugins))
            else:
                new.append(part)
        if new:
            plugins = (*plugins, Plugin("program", "(no plugin)", "program", tuple(new)))
        return Registry(plugins)

    def describe(self, part: Component) -> str:
        """Return a part with its plugin for a message: "loss 'kl' of vgx 1.0"."""
        plugin = self.owner(type(part))
        return f"{part.kind} '{part.type}' of {plugin.distribution} {plugin.version}"

    def keeps(self, part: Component) -> bool:
        """Return whether a later command can find the part: in an installed plugin or in a file.

        A plugin that was made in a program, such as a notebook, is gone with the program.
        """
        return self.owner(type(part)).hook is not None


def _among(part: type[Component], others: Sequence[type[Component]]) -> bool:
    """Return whether a class is one of others, or made of the same file."""
    if part in others:
        return True
    origins = _origins(part)
    return any(origins & _origins(each) for each in others)


def _origins(part: type[Component]) -> set[tuple[str, str]]:
    """Return file and name of a class: a file that is imported twice makes its classes twice.

    A plugin file is known by its path and by its content: its copies in runs are the same file.
    """
    copied = plugin_file.file_of(part.__module__)
    file = getattr(sys.modules.get(part.__module__), "__file__", None)
    path = copied.path if copied else file and Path(file)
    places = {str(path.resolve()) if path else part.__module__}
    if copied:
        places.add(copied.sha256)
    return {(place, part.__qualname__) for place in places}


def discover(files: str | Path | Iterable[str | Path | PluginFile] = ()) -> Registry:
    """Load all installed plugins of the entry-point group `vgx`, then the given files.

    Files are programs, and they are executed, whoever wrote them. Raises `PluginError` if one of
    them fails. Failures of installed plugins are recorded.
    """
    plugins = installed()
    for given in [files] if isinstance(files, str | Path) else files:
        file = given if isinstance(given, PluginFile) else plugin_file.read(given)
        plugins.append(_of_file(file, plugins))
    return Registry(tuple(plugins))


def installed(*, with_parts: bool = True) -> list[Plugin]:
    """Load all installed plugins; without their parts it is quick, and enough for commands."""
    points = importlib.metadata.entry_points(group=hooks.PROJECT)
    # To read the metadata of a distribution takes longer than to go through all its parts.
    origins = {dist: _origin(dist) for dist in {point.dist for point in points}}
    plugins: list[Plugin] = []
    for point in sorted(points, key=lambda point: (*origins[point.dist], point.name)):
        origin = (*origins[point.dist], point.name)
        # Parts of two entry points of one distribution would have the same "distribution:type".
        taken = [part for p in plugins if p.distribution == origin[0] for part in p.parts]
        plugins.append(_load(origin, point.module, point.load, taken if with_parts else None))
    return plugins


def _of_file(file: PluginFile, others: Sequence[Plugin]) -> Plugin:
    """Execute a plugin file. Raises `PluginError` if it fails, or has the name of another one."""
    name = file.path.name
    if name in [plugin.name for plugin in others]:  # "file:type" would be ambiguous
        raise PluginError(f"plugin {file.path}: there is already one called {name}")
    plugin = _load((name, file.version, name), file.module_name, file.load, [])
    if plugin.failure:
        raise PluginError(f"plugin {file.path}: {plugin.failure}")
    return replace(plugin, file=file)


def _origin(distribution: importlib.metadata.Distribution | None) -> tuple[str, str]:
    """Return its name and version, or "unknown" if the metadata are damaged."""
    if distribution is None:
        return "unknown", "unknown"
    known = distribution.metadata
    name, version = (known.get_all(key, ["unknown"])[0] for key in ("Name", "Version"))
    return name, version


def line_of(error: BaseException | None, module: str) -> str:
    """Return the innermost line of a module's package in the traceback of an error.

    Two examples are "mine.py:9" and "package/losses.py:20". Without such a line it is "".
    """
    package, line = module.partition(".")[0], ""
    traceback = error.__traceback__ if error else None
    while traceback is not None:
        code, name = traceback.tb_frame.f_code, traceback.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] == package:
            depth = name.count(".") + 1 + (Path(code.co_filename).stem == "__init__")
            inside = "/".join(Path(code.co_filename).parts[-depth:])
            line = f"{inside}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def failure_of(work: Callable[[], object], module: str = "") -> str:
    """Do the work of a plugin; return the error that it raised as one line, or "".

    With the name of the plugin's module the line of its code that failed is added.
    """
    try:
        work()
    # Other people's code may raise anything, SystemExit too; none of it may stop the program.
    except BaseException as error:
        if by_user(error):
            raise
        text = textwrap.shorten(" ".join(f"{type(error).__name__}: {error}".split()), 300)
        line = "" if isinstance(error, PluginError) else line_of(error, module)
        return f"{text} (at {line})" if line else text
    return ""


def _load(
    origin: tuple[str, str, str],
    module: str,
    load: Callable[[], object],
    taken: list[type[Component]] | None,
) -> Plugin:
    """Load a plugin, and its parts unless `taken`, the parts that it may not repeat, is None."""
    parts: list[type[Component]] = []
    known = {(part.kind, part.type) for part in taken or ()}
    manager = pluggy.PluginManager(hooks.PROJECT)

    def register() -> None:
        manager.add_hookspecs(hooks)
        manager.register(load(), name=origin[-1])
        found = [name for name in hooks.HOOKS if getattr(manager.hook, name).get_hookimpls()]
        if not found:
            raise PluginError(f"it has no function {' or '.join(hooks.HOOKS)} marked @vgx.hookimpl")
        if taken is None:
            return
        manager.hook.register_components(register=lambda part: parts.append(_checked(part, known)))
        if not parts and found == ["register_components"]:
            message = "in register_components(register), call register(X) with each part class X"
            raise PluginError(f"it registers no part: {message}")

    # What a plugin prints must not mix with the output of a command: `vgx schema > file`.
    with contextlib.redirect_stdout(sys.stderr):
        failure = failure_of(register, module)
    if failure:
        return Plugin(*origin, failure=failure)
    return Plugin(*origin, tuple(parts), hook=manager.hook)


def _checked(part: object, known: set[tuple[str, str]]) -> type[Component]:
    """Return the part, and add its kind and type to those that are known."""
    if not (isinstance(part, type) and issubclass(part, KINDS) and part.type):
        kinds = ", ".join(f"vgx.{kind.__name__}" for kind in KINDS)
        raise PluginError(f'{part!r} is no part: a part is a class X({kinds}; type="...")')
    if inspect.isabstract(part):
        lacks = ", ".join(sorted(part.__abstractmethods__))
        raise PluginError(f"the {part.kind} {part.type!r} lacks the method {lacks}")
    if not (part.__doc__ or "").strip() and sys.flags.optimize < 2:  # -OO removes docstrings
        raise PluginError(
            f"the {part.kind} {part.type!r} has no docstring, which is its documentation"
        )
    if (part.kind, part.type) in known:
        raise PluginError(f"it registers two parts as {part.kind} {part.type!r}")
    known.add((part.kind, part.type))
    return part
