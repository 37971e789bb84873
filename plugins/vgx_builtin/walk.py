"""What is below a folder: each file once, and why some are left out."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import vgx
from vgx_builtin.formats import HEAD, endings, why_not

# Folders that a system, a disk or a program keeps for itself, in lower case. Those that begin with
# a dot are left out like all hidden ones.
_SYSTEM = {
    "__macosx", "__pycache__", "$recycle.bin", "#recycle", "#snapshot", "@eadir", "@recycle",
    "@recently-snapshot", "@tmp", "@__thumb", "~snapshot", "lost+found", "found.000", "recycler",
    "system volume information",
}  # fmt: skip
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir
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
        return why_not(name, known, partial(_head, root, name))
    except (OSError, vgx.StorageError) as error:
        dead = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP)
        return "dead link" if dead else "file that cannot be opened"


def _head(root: Path, name: str) -> bytes:
    with vgx.open_regular(root / name) as file:
        return file.read(HEAD)


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each file below a folder, and why it is left out: "" if it is not.

    Names are relative to the folder, with "/". Folders that are left out are one entry. Links are
    followed; each folder is entered once, however many links lead to it, and by its own name rather
    than by that of a link. A link that leads nowhere is a file. Raises `DataError` for a folder
    that cannot be read.
    """
    real = os.path.realpath(root)
    seen, links, folders = {real}, list[str](), [("", real)]
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            name = links.pop()
            real = os.path.realpath(root / name)
            if real in seen:
                yield name, AGAIN
                continue
            seen.add(real)
            folders.append((name, real))
        folder, real = folders.pop()
        entries = _entries(root / folder)
        if why := _mark(root / folder, {entry.name for entry in entries}, top=not folder):
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


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise vgx.DataError(f"{folder}: {error.strerror}") from error


def left_out(name: str) -> str:
    """Return why a file or folder with this name is left out, or an empty text."""
    if name.startswith("."):
        return "hidden file"
    return name if name.lower() in _SYSTEM else ""


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


def mark_of(names: set[str]) -> str:
    """Return what vgx has made a folder for, by the names of its files; "" for another folder."""
    if "recipe.yaml" in names and names & {"environment.json", "log.jsonl", "lock"}:
        return "run of vgx"
    stores = {"images", "images.lock"} <= names or {"store.json", "hashes.u64"} <= names
    return "cache of vgx" if stores else ""


def _mark(folder: Path, names: set[str], *, top: bool) -> str:
    """Return why a folder is left out because of what is in it; "" for a folder of images.

    Whoever names a cache as the folder of images means it.
    """
    mark = mark_of(names)
    if mark or top:
        return mark if mark == "run of vgx" or not top else ""
    if "CACHEDIR.TAG" in names:
        try:
            return "cache" if _head(folder, "CACHEDIR.TAG").startswith(_TAG) else ""
        except (OSError, vgx.StorageError):
            return ""
    return ""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder as `walk` does, without those that are left out.

    Pipes and devices are not left out: whoever opens them is told what they are.
    """
    yield from (folder / name for name, why in walk(folder) if not why or why in SPECIAL)


def has_parquet(folder: Path) -> bool:
    """Return whether a folder has parquet files, as data sets in the hub's layout do."""
    return any(file.suffix == ".parquet" for file in files_below(folder))


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
