"""Write files atomically, explain errors of the disk, and find the cache directory."""

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
    """Return the directory of files that can be made again: VGX_CACHE, or the user's cache."""
    return Path(os.environ.get("VGX_CACHE") or platformdirs.user_cache_path("vgx"))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically: it has either the old content or the new, never a part.

    Missing directories are made. Raises `StorageError` if the system refuses to write.
    """
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
    """Flush the entries of a directory to the disk, so that a rename survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: OSError, path: Path, needed: int = 0) -> str:
    """Return why the system refused to write at `path`.

    For a full disk, the text has the free space and the `needed` space, both in bytes.
    """
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
    """Turn an `OSError` in the block into a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {refusal(error, path.parent)}") from error
