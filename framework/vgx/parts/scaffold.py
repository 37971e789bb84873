"""The files of a new plugin: a small part that works, its test, its packaging."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from vgx.errors import RecipeError
from vgx.files import write_file
from vgx.parts.registry import Registry

_NAME = re.compile(r"(?=.{1,64}$)(vgx-)?[a-z][a-z0-9]*(-[a-z0-9]+)*")


def make_plugin(name: str, kind: str, folder: Path, registry: Registry) -> list[Path]:
    """Write a package with one part of a kind to a new folder, and return its files.

    Package and folder are called `name`. Raises `RecipeError` if the name is invalid or taken.
    """
    kebab, module, place = name.removeprefix("vgx-"), name.replace("-", "_"), folder / name
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"{name[:80]!r} is no name for a package: write at most 64 lowercase letters, "
            "digits and hyphens, as in vgx-huber"
        )
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise RecipeError(f"{name}: Python has a '{module}' already; take another name")
    for plugin, part in registry.offers(kind):
        if part.type == kebab:
            raise RecipeError(
                f"{name}: {plugin.distribution} has a {kind} '{kebab}' already; take another name"
            )
    if place.exists():
        raise RecipeError(f"{place}: is already there; take another name, or remove it")
    camel = "".join(word.capitalize() for word in kebab.split("-"))
    words = {"name": name, "kind": kind, "type": kebab, "module": module}
    words["cls"] = camel + kind.capitalize()
    templates = {
        "pyproject.toml": "pyproject",
        "README.md": "readme",
        f"{module}.py": kind,
        f"test_{module}.py": "test",
    }
    for file, template in templates.items():
        text = files("vgx").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
        write_file(place / file, Template(text).substitute(words))
    return [place / file for file in templates]
