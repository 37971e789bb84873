"""Removing runs: only what is a run, and none that is being trained."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

from vgx.errors import BusyError, Notice, StorageError
from vgx.files import storage
from vgx.runs.directory import Run

NEEDED = ("recipe.yaml", "environment.json")  # by which a folder is known as a run
_NUMBERED = re.compile(r"\d{4,}-.+")
_REMOVED = re.compile(r"\..+\.removed-[0-9a-f]{16}")


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
        message = f"process {holder} {what}; nothing was removed{run.advice(holder)}"
        raise BusyError(f"{path}: {message}")


def remove(run: Run) -> None:
    """Remove a run and all that is in it; links in it are removed, and not what they lead to.

    It gets another name first, so nobody finds a run of which half is removed. What an earlier
    removal left is removed too, or a notice says why it cannot be. Raises `StorageError` when some
    of the run stays.
    """
    require_run(run)
    path = run.path.resolve()
    aside = path.with_name(f".{path.name}.removed-{secrets.token_hex(8)}")
    with storage(path):
        path.rename(aside)
    if holder := Run(aside).holder():  # it has begun since
        aside.rename(path)
        raise BusyError(f"{path}: process {holder} is training here; it was not removed")
    _delete(aside)
    for folder in path.parent.glob(".*"):
        if _REMOVED.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            try:
                _delete(folder)
            except StorageError as error:
                warnings.warn(str(error), Notice, stacklevel=2)


def _delete(folder: Path) -> None:
    """Delete what is aside, or all of it that can be. Raises `StorageError` when some stays."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        while folder.is_dir():
            with suppress(FileNotFoundError):  # another process may remove it too
                shutil.rmtree(folder)
    except OSError as error:
        what = "the rest of a run that vgx rm removed and vgx list no longer shows"
        message = f"{what} cannot be deleted: {error.strerror}; delete this folder yourself"
        raise StorageError(f"{folder}: {message}") from error
