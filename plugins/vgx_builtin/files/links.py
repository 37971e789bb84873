"""Links on the way to files of a data set."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import vgx


def tell_of_links(files: list[Path], root: Path, where: str) -> None:
    """Give a notice when links that lead out of the folder `root` are on the way to some files.

    Links to files and to folders are counted, each once.
    """
    inside, out = os.path.realpath(root), dict[Path, str]()
    for folder in sorted({file.parent for file in files}):
        if not _is_below(os.path.realpath(folder), inside):
            way = [folder, *folder.parents]
            links = (step for step in reversed(way[: way.index(root)]) if step.is_symlink())
            link = next(step for step in links if not _is_below(os.path.realpath(step), inside))
            out[link] = os.path.realpath(link)
    for file in files:
        if file.is_symlink() and not _is_below(target := os.path.realpath(file), inside):
            out[file] = target
    if out:
        link, target = next(iter(out.items()))
        first = f"{link.relative_to(root)} -> {target}"
        text = f"{where}: {root}: links that lead out of this folder: {len(out):,}, such as {first}"
        warnings.warn(text, vgx.Notice, stacklevel=2)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
