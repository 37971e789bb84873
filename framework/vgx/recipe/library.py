"""The recipes that come with vgx, by name."""

from __future__ import annotations

import re
from pathlib import Path

from vgx.errors import RecipeError
from vgx.parts.base import near


def recipes() -> dict[str, Path]:
    """Return the files of the recipes that come with vgx, by name."""
    package = Path(__file__).parents[1]
    # An installed package has them inside; in a clone they have a folder of their own.
    folders = (package / "recipes", package.parents[1] / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(recipe: str | Path, folder: Path | None = None) -> Path:
    """Return the file of a recipe, given by its path or by the name of one that comes with vgx.

    A path is relative to `folder`. A file that exists comes before a recipe of that name.
    """
    path = (folder or Path()) / recipe
    named = recipes().get(str(recipe).replace("-", "_"))
    return path if named is None or path.is_file() else named


def about(file: Path) -> str:
    """Return the first sentence of the comment at the beginning of a recipe, without titles."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = " ".join(line.lstrip("# ") for line in lines[:end])
    return re.split(r"(?<=\.)\s+(?=[A-Z])", re.sub(r', "[^"]*"', "", text))[0]


def read(name: str) -> str:
    """Return the text of a recipe that comes with vgx."""
    file = recipes().get(name.replace("-", "_"))
    if file is None:
        message = f"no recipe '{name}' comes with vgx; there are: {', '.join(recipes())}"
        raise RecipeError(message + meant(Path(name)))
    return file.read_text(encoding="utf-8")


def meant(path: Path) -> str:
    """Return a suggestion for a path without a file, to append to a message; "" if none is near."""
    name = re.sub(r"\.ya?ml$", "", path.name)
    beside = {file.stem: str(file) for file in path.parent.glob("*.y*ml")}
    found = [beside.get(near(name, beside), ""), near(name.replace("-", "_"), recipes())]
    names = " or ".join(f"'{name}'" for name in found if name)
    return f"; did you mean {names}?" if names else ""
