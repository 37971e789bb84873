"""Files written whole, errors of the disk in words, and the folder of what can be made again."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from vgx.errors import StorageError


def cache_dir() -> Path:
    """Return the folder of things that can be made again: VGX_CACHE, or the user's cache."""
    return Path(os.environ.get("VGX_CACHE") or platformdirs.user_cache_path("vgx"))


def write_file(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: it holds the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Bring a directory's names to the disk: a rename is lasting only then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: OSError, path: Path, needed: int = 0) -> str:
    """Say why the system refused to write; of a full disk also what is needed and what is free."""
    text = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return text
    wanted = f"needs {needed / 2**20:,.2f} MiB, " if needed else ""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path).free
        text = f"{text}: {wanted}has {free / 2**20:,.2f} MiB"
    return f"disk full: {text}"


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Raise a `StorageError` that names the path for what the system refuses in the block."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {refusal(error, path.parent)}") from error
