"""What is below a folder: each file once, and why some are left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import vgx
from vgx_builtin.files.formats import endings, why_not
from vgx_builtin.files.leftovers import head_of, left_out, mark_in

AGAIN = "folder that was met before"
SPECIAL = ("named pipe", "socket", "device")


@dataclass
class Found:
    """The names of images, and how many other files there are, by the reason to leave them out."""

    names: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)  # one name for each reason

    def add(self, name: str, why: str) -> None:
        """Add a file: an image if `why` is empty."""
        if not why:
            self.names.append(name)
            return
        self.left_out[why] = self.left_out.get(why, 0) + 1
        self.first.setdefault(why, name)


def images_below(root: Path) -> Found:
    """Return the images below a folder, sorted by their names, and what else is there.

    Raises `DataError` for a folder that cannot be read.
    """
    found, known = Found(), endings()
    for name, why in walk(root):
        found.add(name, why or _why_not(root, name, known))
    found.names.sort(key=lambda name: name.split("/"))
    return found


def _why_not(root: Path, name: str, known: set[str]) -> str:
    try:
        return why_not(name, known, partial(head_of, root, name))
    except (OSError, vgx.StorageError) as error:
        dead = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP)
        return "dead link" if dead else "file that cannot be opened"


def walk(root: Path, *, linked: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the name of each file below a folder, and why it is left out: "" if it is not.

    Names are relative to the folder, with "/". Folders that are left out are one entry. Links are
    followed, those to folders only if `linked`; each folder is entered once, however many links
    lead to it, and by its own name rather than by that of a link. A link that leads nowhere is a
    file. Raises `DataError` for a folder that cannot be read.
    """
    real = os.path.realpath(root)
    seen, links, folders = {real}, list[str](), [("", real)]
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            name = links.pop()
            real = os.path.realpath(root / name)
            if why := _not_followed(real, root, seen, linked=linked):
                yield name, why
                continue
            seen.add(real)
            folders.append((name, real))
        folder, real = folders.pop()
        entries = _entries(root / folder)
        if why := mark_in(root / folder, {entry.name for entry in entries}, top=not folder):
            yield folder or ".", why
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            kind = left_out(entry.name) or _kind(entry)
            inner = f"{real}/{entry.name}"
            if kind == "link":
                links.append(name)
            elif kind != "folder":
                yield name, kind
            elif inner in seen:  # a link has led here
                yield name, AGAIN
            else:
                seen.add(inner)
                folders.append((name, inner))


def _not_followed(real: str, root: Path, seen: set[str], *, linked: bool) -> str:
    """Return why a link to the folder `real` is not followed; "" if it is."""
    if real in seen:
        return AGAIN
    around = Path(os.path.realpath(root)).is_relative_to(real)
    if not linked or around or Path(real).parts[1:2] in (("proc",), ("sys",), ("dev",)):
        return "link to a folder"
    return ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise vgx.DataError(f"{folder}: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "link" to a folder, "" for a file, or what else an entry is."""
    try:
        if entry.is_file():
            return ""
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
        mode = entry.stat().st_mode
    except OSError:
        return ""  # a link that leads nowhere, or in a circle
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder as `walk` does, without those that are left out.

    Pipes and devices are not left out: whoever opens them is told what they are. Links to folders
    are not followed, since a data set of somebody else may lead anywhere.
    """
    found = walk(folder, linked=False)
    yield from (folder / name for name, why in found if not why or why in SPECIAL)


def has_parquet(folder: Path) -> bool:
    """Return whether a folder has parquet files, as data sets in the hub's layout do."""
    return any(file.suffix == ".parquet" for file in files_below(folder))
