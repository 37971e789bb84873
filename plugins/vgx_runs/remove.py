"""Removing runs: only what is a run, and none that is being trained."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import warnings
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from vgx.errors import BusyError, Notice, StorageError
from vgx.files import storage
from vgx.runs.directory import Run

NEEDED = ("recipe.yaml", "environment.json")  # by which a folder is known as a run
_NUMBERED = re.compile(r"\d{4,}-.+")
_REMOVED = ".?*.removed-" + "[0-9a-f]" * 16


def require_run(run: Run) -> None:
    """Raise `StorageError` for what is no run, or is a link, and `BusyError` for a busy run.

    A run that was ended before it began has no recipe: it is known by its name, if nothing is in it
    that vgx does not write.
    """
    path = run.path
    if path.is_symlink():
        raise StorageError(f"{path}: a link to {path.resolve()}; name the run itself")
    if not path.is_dir():
        raise StorageError(f"{path}: no run")
    unborn = _NUMBERED.fullmatch(path.resolve().name) and not run.others()
    with storage(path), os.scandir(path) as entries:
        files = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    if not unborn and not files.issuperset(NEEDED):
        what = f"no run, since it does not have {' and '.join(NEEDED)}; nothing was removed"
        raise StorageError(f"{path}: {what}")
    if holder := run.holder():
        what = "has not said that it ended" if run.advice(holder) else "is training here"
        raise BusyError(f"{path}: process {holder} {what}; nothing was removed{run.advice(holder)}")


def remove(runs: Collection[Run]) -> None:
    """Remove runs and all that is in them; links are removed, and not what they lead to.

    What an earlier removal left is removed too, or a notice says why it cannot be. Raises
    `StorageError` that names what stays of the runs, when all else is removed.
    """
    hidden = [path for run in runs for path in run.path.resolve().parent.glob(_REMOVED)]
    stays = list(filter(None, map(_remove, runs)))
    for folder in dict.fromkeys(hidden):
        if folder.is_dir() and not folder.is_symlink() and (text := _delete(folder)):
            warnings.warn(text, Notice, stacklevel=2)
    if stays:
        raise StorageError("\n".join(stays))


def _remove(run: Run) -> str:
    """Remove a run; return a message about what cannot be removed of it, or an empty text.

    It gets another name first, so nobody finds a run of which half is removed.
    """
    require_run(run)
    path = run.path.resolve()
    aside = path.with_name(f".{path.name}.removed-{secrets.token_hex(8)}")
    with storage(path):
        path.rename(aside)
    if holder := Run(aside).holder():  # it has begun since
        aside.rename(path)
        raise BusyError(f"{path}: process {holder} is training here; it was not removed")
    return _delete(aside)


def _delete(folder: Path) -> str:
    """Delete what is aside, or all of it that can be; return a message about what stays."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        while folder.is_dir():
            with suppress(FileNotFoundError):  # another process may remove it too
                shutil.rmtree(folder)
    except OSError as error:
        what = "the rest of a run that vgx rm removed and vgx list does not show cannot be deleted"
        return f"{folder}: {what}: {error.strerror}; delete this folder yourself"
    return ""
