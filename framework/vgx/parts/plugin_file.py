"""Plugin files: their bytes, the SHA-256 of these bytes, and a module that is made of them.

A file is read once. What is hashed, imported and copied into a run are the same bytes. Bytecode is
neither read nor written: `__pycache__` may contain other code than the file beside it.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import linecache
import os
import stat
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from vgx.errors import PluginError, StorageError
from vgx.files import read_file, user_path

MOST = 2**20  # bytes of a plugin file
MOST_FILES = 100  # plugin files of a run
_PREFIX = "vgx_plugin_file_"  # of module names, so that a file hides no installed module


@dataclass(frozen=True)
class PluginFile:
    """A plugin file and its content."""

    path: Path
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes, in hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def version(self) -> str:
        """The first 12 digits of its SHA-256."""
        return self.sha256[:12]

    @property
    def module_name(self) -> str:
        """The name of its module."""
        return f"{_PREFIX}{self.path.stem}_{self.version}"

    @property
    def line(self) -> str:
        """Name, size and SHA-256, for messages."""
        return f"{self.path.name!r}, {len(self.data):,} bytes, SHA-256 {self.sha256}"

    def load(self) -> ModuleType:
        """Execute its bytes as a new module."""
        name, path = self.module_name, str(self.path)
        loader = _Loader(self)
        spec = ModuleSpec(name, loader, origin=path)
        spec.has_location = True  # sets __file__
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # pydantic looks up the names of annotations there
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    @property
    def executed(self) -> bool:
        """Whether this process has executed the same bytes before."""
        files = [file_of(name) for name in [*sys.modules] if name.startswith(_PREFIX)]
        return any(file is not None and file.data == self.data for file in files)


class _Loader(importlib.abc.InspectLoader):
    """Makes a module of the bytes that were read, whatever is in the file by now."""

    def __init__(self, file: PluginFile) -> None:
        self.file = file

    def get_source(self, fullname: str) -> str:
        del fullname
        return importlib.util.decode_source(self.file.data)

    def get_code(self, fullname: str) -> CodeType:
        path = str(self.file.path)
        code = self.source_to_code(self.file.data, path)
        # Tracebacks and `inspect` show these lines; an entry without a time is never read again.
        lines = self.get_source(fullname).splitlines(keepends=True)
        linecache.cache[path] = (len(self.file.data), None, lines, path)
        return code


def file_of(module: str) -> PluginFile | None:
    """Return the plugin file that a module of this process was made of; None for other modules."""
    loader = getattr(sys.modules.get(module), "__loader__", None)
    return loader.file if isinstance(loader, _Loader) else None


def read(path: str | Path) -> PluginFile:
    """Read a file that a user names. Raises `PluginError` when it is no Python file."""
    path = user_path(path)
    if path.suffix != ".py":
        raise PluginError(f"plugin {path}: it is no Python file: the name must end in .py")
    try:
        return PluginFile(path, read_file(path, MOST))
    except OSError as error:
        raise PluginError(f"plugin {path}: {error.strerror}") from None
    except StorageError as error:
        raise PluginError(f"plugin {error}") from None


def files_in(folder: Path) -> list[PluginFile]:
    """Read the plugin files in a run's folder `plugins`, sorted by name.

    Files whose names do not end in .py, and `__pycache__`, are not read. Raises `PluginError` for
    what no run contains: hidden files, links, anything but regular files, many or large files.
    """
    try:
        if folder.is_symlink():
            raise PluginError(f"{folder}: a link; plugin files must be in the run itself")
        names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))  # noqa: PTH208
        if len(names) > MOST_FILES:
            raise PluginError(f"{folder}: {len(names):,} plugin files; at most {MOST_FILES}")
        for name in names:
            if name.startswith("."):
                raise PluginError(f"{folder}: {name!r} is hidden, so it is not imported; remove it")
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise PluginError(f"{folder}: {name!r} is no regular file; remove it")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PluginError(f"{folder}: {error.strerror}") from None
    return [read(folder / name) for name in names]
