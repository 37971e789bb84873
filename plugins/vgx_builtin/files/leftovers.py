"""What people do not mean as data: hidden files, folders of a system, runs and caches."""

from __future__ import annotations

from pathlib import Path

import vgx
from vgx_builtin.files.formats import HEAD

# Folders that a system, a disk or a program keeps for itself, in lower case. Those that begin with
# a dot are left out like all hidden ones.
_SYSTEM = {
    "__macosx", "__pycache__", "$recycle.bin", "#recycle", "#snapshot", "@eadir", "@recycle",
    "@recently-snapshot", "@tmp", "@__thumb", "~snapshot", "lost+found", "found.000", "recycler",
    "system volume information",
}  # fmt: skip
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir


def left_out(name: str) -> str:
    """Return why a file or folder with this name is left out, or an empty text."""
    if name.startswith("."):
        return "hidden file"
    return name if name.lower() in _SYSTEM else ""


def mark_of(names: set[str]) -> str:
    """Return what vgx has made a folder for, by the names of its files; "" for another folder."""
    if "recipe.yaml" in names and names & {"environment.json", "log.jsonl", "lock"}:
        return "run of vgx"
    stores = {"images", "images.lock"} <= names or {"store.json", "hashes.u64"} <= names
    return "cache of vgx" if stores else ""


def mark_in(folder: Path, names: set[str], *, top: bool) -> str:
    """Return why a folder is left out because of what is in it; "" for a folder of images.

    Whoever names a cache as the folder of images means it.
    """
    mark = mark_of(names)
    if mark or top:
        return mark if mark == "run of vgx" or not top else ""
    if "CACHEDIR.TAG" in names:
        try:
            return "cache" if head_of(folder, "CACHEDIR.TAG").startswith(_TAG) else ""
        except (OSError, vgx.StorageError):
            return ""
    return ""


def head_of(root: Path, name: str) -> bytes:
    """Return the first bytes of a regular file. Raises `OSError`, `StorageError`."""
    with vgx.open_regular(root / name) as file:
        return file.read(HEAD) or b""  # None: a file of /proc that would wait
