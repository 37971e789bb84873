"""Paths as users write them, files written whole, errors of the disk as messages."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from vgx.errors import RecipeError, StorageError


def user_path(path: str | Path) -> Path:
    """Return a path that a user wrote, with the home directory in place of `~`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of pathlib fails for an unknown user


def cache_dir() -> Path:
    """Return the folder of files that can be made again: VGX_CACHE, or the user's cache."""
    return user_path(os.environ.get("VGX_CACHE") or platformdirs.user_cache_path("vgx"))


def require_ending(path: Path, what: str, endings: Iterable[str]) -> str:
    """Return the ending of a file's name, in lower case: it says what is written there.

    Raises `RecipeError` when it is none of `endings`; `what` is "an image" or the like.
    """
    ending, allowed = path.suffix.lower(), list(endings)
    if ending not in allowed:
        *others, last = allowed
        listed = f"{', '.join(others)} or {last}" if others else last
        raise RecipeError(f"{path}: the name of {what} must end in {listed}")
    return ending


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Links are followed. A pipe, a device or a folder is not waited for, and not read. Raises
    `OSError`, and `StorageError` for a file that is none of this kind.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise StorageError(f"{path}: not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            # A file that grows, or has no size as those of /proc, shows only when it is read.
            data = b"" if about.st_size > most else file.read(most + 1)
    finally:
        os.close(descriptor)
    size = max(about.st_size, len(data))
    if size > most:
        raise StorageError(f"{path}: {size:,} bytes; at most {most:,} are read")
    return data


def write_file(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Replace a file as a whole: it has the old content or the new, never a part.

    Without `sync` nothing waits for the disk, so a crash of the machine may lose the file. Raises
    `StorageError`.
    """
    # A path may have bytes that are no text; in JSON what they become is read as they were.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with replacing(path, sync=sync) as temporary:
        write_through(temporary, data, sync=sync)


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give the block a temporary path, and move the file that it writes there to `path`.

    When the block fails, the old file stays. Raises `StorageError` for an `OSError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            flush_directory(path.parent)


def write_through(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a new file and, with `sync`, wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Wait until a directory's names are on the disk: only then does a rename survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: OSError, path: Path, needed: int = 0) -> str:
    """Return why the system refused to write; for a full disk also what is needed and free."""
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
