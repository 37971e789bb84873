"""Which plugin files of a run are imported: those that this user has trusted, by their SHA-256.

A run from somebody else may contain any program as a plugin file. The files that a user gives to
`vgx run --plugin`, or trusts later, are noted in the user's configuration: an empty file that is
named by the SHA-256. A run that is only looked at needs none of this.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vgx.errors import Notice, PluginError, StorageError
from vgx.files import config_dir, write_file
from vgx.parts.plugin_file import PluginFile
from vgx.parts.registry import Registry, discover
from vgx.runs.directory import Run, find

SHOWN = 6  # files in a message


def registry_of(run: Run) -> Registry:
    """Return the installed plugins and those whose files were copied into the run.

    Raises `PluginError`, before anything is executed, for files that are not trusted.
    """
    files = run.plugin_files  # read once: what is checked is what is executed
    require(run, files)
    return discover(files)


def trust_plugins(run: Run | str | Path | int | None = None) -> None:
    """Trust the plugin files of a run, now and later: import them, and note their SHA-256.

    Read them first: they are programs. `run` is a path, a number or a name; None is the newest run.
    Raises `PluginError` when one of them cannot be imported.
    """
    files = find(run).plugin_files
    discover(files)
    remember(files)


def untrusted(files: Iterable[PluginFile]) -> list[PluginFile]:
    """Return those files whose bytes were neither noted nor executed in this process."""
    return [file for file in files if not (file.executed or _noted(file))]


def require(run: Run, files: Iterable[PluginFile]) -> None:
    """Raise `PluginError` that lists those of a run's plugin files that are not trusted."""
    if unknown := untrusted(files):
        more = len(unknown) - SHOWN
        lines = [file.line for file in unknown[:SHOWN]] + [f"and {more} more"] * (more > 0)
        raise PluginError(
            f"{run.path}: its plugin files are programs, and you have not trusted these yet, so "
            "they were not executed. Read them; if you trust them: --trust-plugins (in Python: "
            "vgx.trust_plugins(RUN))\n  " + "\n  ".join(lines)
        )


def remember(files: Iterable[PluginFile]) -> None:
    """Note that this user trusts some files; a notice when the configuration cannot be written."""
    for file in files:
        if not _noted(file):
            try:
                write_file(_place(file), "")
            except StorageError as error:
                text = f"{error}: so vgx will ask before it imports {file.path.name!r} from a run"
                warnings.warn(text, Notice, stacklevel=2)


def _noted(file: PluginFile) -> bool:
    with suppress(OSError, StorageError):
        return _place(file).is_file()
    return False


def _place(file: PluginFile) -> Path:
    """Return the file that notes trust.

    Raises `StorageError` for a relative folder: it would be another one in each working directory,
    and a stranger may have made it.
    """
    folder = config_dir() / "plugins"
    if not folder.is_absolute():
        raise StorageError(f"{folder}: VGX_CONFIG must be an absolute path")
    return folder / file.sha256
