"""Paths as users write them, files written whole, errors of the disk as messages.

A file is written whole: beside its place, as `.unfinished-` and 16 hexadecimal digits, and renamed.
Its writer holds this file with an flock, which ends with the process. So whoever writes into the
same folder next can tell what a killed process left, and removes it. A new folder is written in the
same way, beside an empty file of this kind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TextIO

import platformdirs

from vgx.errors import RecipeError, StorageError

UNFINISHED = re.compile(r"\.unfinished-[0-9a-f]{16}")
FOLDER = ".folder"  # is added to the name of the file that is held for it
# What helps when the system refuses to write; for a full disk see `refusal`.
HELPS = {
    errno.EDQUOT: "remove files that you no longer need, or write to another disk",
    errno.EROFS: "this disk is read-only; write to another folder",
    errno.EACCES: "you may not write there; write to another folder, or change the permissions",
    errno.EPERM: "you may not write there; write to another folder, or change the permissions",
    errno.EMFILE: "this process may open no more files; allow more with: ulimit -n 4096",
    errno.ENFILE: "all programs together have too many files open; end some of them",
    errno.EFBIG: "files may not grow so large here; ulimit -f shows and changes the limit of a "
    "shell, and some disks (FAT) have a limit of their own",
    errno.ENAMETOOLONG: "give a shorter name; most disks take 255 bytes",
    errno.EIO: "the disk fails; save what you need, and write to another one",
    errno.ELOOP: "links lead in a circle; remove one of them",
    errno.ESTALE: "a network disk no longer has it; mount that disk again",
    errno.EBUSY: "something is mounted there; write to another file in a folder that is mounted",
    errno.ENXIO: "nothing is behind this device",
    # Of flock, which keeps a second process from a run.
    errno.ENOLCK: "this disk locks no files; mount it with locks, or write to another one",
    errno.ENOSYS: "this disk locks no files; mount it with locks, or write to another one",
}


def user_path(path: str | Path) -> Path:
    """Return a path that a user wrote, with the home directory in place of `~`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of pathlib fails for an unknown user


def working_folder() -> str:
    """Return the folder in which relative paths begin; an empty text when it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a text
    except OSError:
        return ""


def cache_dir() -> Path:
    """Return the folder of files that can be made again: VGX_CACHE, or the user's cache."""
    return user_path(os.environ.get("VGX_CACHE") or platformdirs.user_cache_path("vgx"))


def config_dir() -> Path:
    """Return the folder of what vgx keeps for the user: VGX_CONFIG, or the user's configuration."""
    return user_path(os.environ.get("VGX_CONFIG") or platformdirs.user_config_path("vgx"))


def require_ending(path: Path, what: str, endings: Iterable[str]) -> str:
    """Return the ending of a file's name, in lower case: it says what is written there.

    A device or a pipe may have any name; without one of `endings` it gets the first of them. Raises
    `RecipeError` when the ending is none of these; `what` is "an image" or the like. Raises
    `StorageError` for a folder, and for anything else that cannot be written to.
    """
    ending, allowed = path.suffix.lower(), list(endings)
    with storage(path):
        stream = destination(path) is None
    if ending not in allowed and stream:
        return allowed[0]
    if ending not in allowed:
        *others, last = allowed
        listed = f"{', '.join(others)} or {last}" if others else last
        raise RecipeError(f"{path}: the name of {what} must end in {listed}")
    return ending


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def require_writable(folder: Path) -> None:
    """Raise `StorageError` unless files can be made in a folder, which may not be there yet."""
    with storage(folder):
        place = existing(folder)
        if not place.is_dir():
            raise StorageError(f"{folder}: {place} is {kind_of(place.stat().st_mode)}, no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(f"{folder}: nothing can be written in {place}")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes. Links are followed.

    A pipe or a device is not waited for. Raises `OSError`, and `StorageError` for what is no
    regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path}: not a regular file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def opened(path: Path, most: int) -> Iterator[BufferedReader]:
    """Open a regular file of at most `most` bytes, to be read in the block.

    Raises as `open_regular` does, and `StorageError` for a larger file. A file may grow while it is
    read, and those of /proc have no size: whoever reads bounds what is read.
    """
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise StorageError(f"{path}: {size:,} bytes; at most {most:,} are read")
        yield file


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes. Raises as `opened` does."""
    with opened(path, most) as file:
        data = file.read(most + 1) or b""  # None: a file of /proc that would wait
    if len(data) > most:
        raise StorageError(f"{path}: more than {most:,} bytes; no more are read")
    return data


def destination(path: Path) -> Path | None:
    """Return the file that is replaced when a path is written: a link stays, the file behind it is.

    None is a device, a pipe or an open file, such as /dev/null or /dev/stdout: it is written to.
    Raises `OSError`, and `StorageError` for a folder, a socket or a disk.
    """
    named = path
    with suppress(FileNotFoundError, NotADirectoryError):  # there is nothing yet
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            if _descriptor(path) is not None:
                return None
            path = Path(os.path.realpath(path))
            mode = path.stat().st_mode
        if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
            raise StorageError(f"{named}: is {kind_of(mode)}; give the name of a file")
        if not stat.S_ISREG(mode):
            return None
    return path


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path names, as /dev/stdout does."""
    for _ in range(40):  # as many links as the system follows
        place = Path(os.path.realpath(path.parent)) / path.name
        if own := re.fullmatch(rf"/proc/{os.getpid()}/fd/(\d+)", str(place)):
            return int(own[1])
        if not place.is_symlink():
            break
        path = place.parent / place.readlink()
    return None


def kind_of(mode: int) -> str:
    """Return what a file of this mode is, for a message."""
    kinds = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a disk",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "no file")


def write_file(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Replace a file as a whole: it has the old content or the new, never a part.

    A link stays a link: the file that it names is replaced. To a device, a pipe or an open file
    (/dev/stdout) the content is written. Without `sync`, for many files in a folder that is there,
    nothing waits for the disk, so a crash of the machine may lose the file, and nothing is tidied.
    Raises `StorageError`.
    """
    # A path may have bytes that are no text: they are written as question marks, since no reader of
    # JSON takes them back.
    data = content.encode(errors="replace") if isinstance(content, str) else content
    with storage(path):
        target = destination(path)
        if target is None:
            own = _descriptor(path)
            # Written where the open file stands, so that what is printed to it comes after.
            opened = os.open(path, os.O_WRONLY | os.O_NOCTTY) if own is None else os.dup(own)
            with os.fdopen(opened, "wb") as stream:
                stream.write(data)
            return
        with replacing(target, sync=sync) as file:
            file.write(data)


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Give the block a new file that then replaces `path`.

    However the block is left, nothing unfinished stays, and when it fails the old file does. Raises
    `StorageError` for an `OSError`.
    """
    with storage(path):
        if sync:
            path.parent.mkdir(parents=True, exist_ok=True)
            tidy(path.parent)
        with _unfinished(path.parent) as (temporary, file):
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            temporary.replace(path)
        if sync:
            flush_directory(path.parent)


@contextmanager
def _unfinished(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give the block a new file that is held, and its path; when the block fails, it is removed."""
    while True:
        path = folder / f".unfinished-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                with suppress(OSError):  # a disk without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not os.fstat(file.fileno()).st_nlink:  # tidied before it was locked
                    continue
                yield path, file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        else:
            return


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give the block a folder beside `folder`, which gets its name when the block is done.

    There may be an empty folder in its place. However else the block is left, nothing stays. Raises
    `StorageError` for anything else that is there.
    """
    require_new(folder)
    parent = folder.absolute().parent
    with ExitStack() as stack:
        with storage(folder):
            parent.mkdir(parents=True, exist_ok=True)
            tidy(parent)
            # A file is held, since NFS locks no directory. Nobody can guess its name, so nobody has
            # made a link beside it that would be followed.
            held, _ = stack.enter_context(_unfinished(parent))
            place = Path(f"{held}{FOLDER}")
            place.mkdir()
        try:
            yield place
            with storage(folder):
                place.replace(folder)
                flush_directory(parent)
                held.unlink()
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def require_new(folder: Path) -> None:
    """Raise `StorageError` unless nothing is at a path, or an empty folder."""
    with storage(folder):
        empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
        if os.path.lexists(folder) and not empty:
            message = "there already, and not an empty folder; give another one"
            raise StorageError(f"{folder}: {message}")


def tidy(folder: Path) -> None:
    """Remove what is unfinished in a folder and held by no process: its writers were killed."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
                continue
            with suppress(OSError):  # held, or removed just now
                # For writing, since NFS gives an exclusive lock for nothing less.
                descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(f"{entry.path}{FOLDER}", ignore_errors=True)
                    Path(entry.path).unlink()
                finally:
                    os.close(descriptor)


def open_own(path: Path) -> TextIO:
    """Open a file to append text, or make it: only a regular file, and only under this name.

    Through a link, or a second name of somebody's file, that file would be written to. Raises
    `OSError`, and `StorageError` for such a file.
    """
    require_own(path, alone=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(
        path,
        "a+",
        encoding="utf-8",
        errors="replace",
        opener=lambda name, _: os.open(name, flags, 0o666),
    )


def require_own(path: Path, *, alone: bool = False) -> None:
    """Raise `StorageError` when there is anything but a regular file or a folder at a path.

    With `alone`, also for a file that has another name too (a hard link).
    """
    with storage(path):
        try:
            about = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
    mode, what = about.st_mode, kind_of(about.st_mode)
    if stat.S_ISREG(mode) and about.st_nlink > 1 and alone:
        what = f"a file with {about.st_nlink} names (hard links)"
    elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    elif stat.S_ISLNK(mode):
        with suppress(OSError):
            what = f"a link to {path.readlink()}"
    message = "vgx writes only to files and folders of the run itself"
    raise StorageError(
        f"{path}: {what}, and {message}; nothing was written. Remove it, or copy the run together "
        "with what it links to: cp -rL RUN COPY"
    )


def write_through(path: Path, data: bytes) -> None:
    """Write a new file and wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Wait until a directory's names are on the disk: only then does a rename survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: OSError, path: Path, needed: int = 0, files: int = 1) -> str:
    """Return why the system refused to write, and what helps; for a full disk what it lacks.

    `needed` are the bytes of what was to be written, `files` its files and folders.
    """
    text = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: {HELPS[error.errno]}" if error.errno in HELPS else text
    wanted = f"needs {needed / 2**20:,.2f} MiB, " if needed else ""
    with suppress(OSError):
        disk = os.statvfs(next(folder for folder in (path, *path.parents) if folder.exists()))
        free = disk.f_bavail * disk.f_frsize / 2**20
        if error.errno == errno.EDQUOT:
            text = f"{text}: {wanted}and your share is used up; {HELPS[error.errno]}"
        elif disk.f_files and disk.f_favail < files:
            left = f"{free:,.2f} MiB, but only {disk.f_favail} files (inodes) of {files}"
            text = f"{text}: it takes {left}; remove files that you no longer need, however small"
        else:
            text = f"{text}: {wanted}has {free:,.2f} MiB"
    return f"disk full: {text}"


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {refusal(error, path.parent)}") from error
