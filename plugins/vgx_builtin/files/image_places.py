"""Where images lie: a folder, a zip file or a tar file, opened in the same way."""

from __future__ import annotations

import tarfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import vgx
from vgx_builtin.files import formats
from vgx_builtin.files.archives import RegularFile
from vgx_builtin.files.image_files import digest, open_bounded
from vgx_builtin.files.tar_stream import BLOCK, COMPRESSIONS, Stream
from vgx_builtin.files.tars import Tar
from vgx_builtin.files.walk import Found, images_below
from vgx_builtin.files.zips import Zip


class Place(Protocol):
    """A folder or an archive with images."""

    @property
    def found(self) -> Found:
        """The names of the images, relative to the place, with "/", and what else is there."""
        ...

    def reader(self, names: Sequence[str]) -> Callable[[str], IO[bytes]]:
        """Return a function that opens one of these files by its name; threads may call it.

        It raises `DataError` for a file that cannot be read. Any regular file may be among `names`.
        """
        ...

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a hash that changes when one of these files changes."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder with images."""

    root: Path
    found: Found

    def reader(self, names: Sequence[str]) -> Callable[[str], IO[bytes]]:
        """Return a function that opens a file of at most `MAX_BYTES` bytes."""
        del names
        return self._open

    def _open(self, name: str) -> IO[bytes]:
        return open_bounded(self.root / name, name)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a hash of the names, sizes and times of files."""
        return digest((self.root / name for name in names), self.root)


def open_place(path: Path) -> Place:
    """Open a folder, an archive, or a folder in an archive: pics.zip/train.

    Raises `DataError` that says what there is instead.
    """
    if path.is_dir():
        return Folder(path, images_below(path))
    file = existing(path)
    inside = str(path.relative_to(file)) if file != path else ""
    if file.is_dir() or not file.exists():
        raise vgx.DataError(f"{path}: there is no such folder or archive: {path.absolute()}")
    kind = archive_kind(file)
    if kind is None:
        raise vgx.DataError(f"{file}: {_what_else(file)}")
    return Zip(file, inside) if kind == "zip" else Tar(file, kind, inside)


def existing(path: Path) -> Path:
    """Return a path, or what exists of it: pics.zip of pics.zip/train."""
    return next((above for above in (path, *path.parents) if above.exists()), path)


def archive_kind(file: Path) -> str | None:
    """Return "zip", "" for a plain tar file, or its compression; `None` for another file.

    Raises `DataError` for what is no regular file.
    """
    opened = RegularFile(file)
    head = opened.at(0, BLOCK)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    compression = _compression(head)
    try:
        block = Stream(opened, compression).read(BLOCK) if compression else head
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (vgx.DataError, tarfile.HeaderError):
        return None
    return compression


def _compression(head: bytes) -> str:
    return next((kind for magic, kind in COMPRESSIONS.items() if head.startswith(magic)), "")


def _what_else(file: Path) -> str:
    """Return what a file is that is no archive of images, and what to do."""
    head = RegularFile(file).at(0, formats.HEAD)
    if formats.kind_of(head):
        return f"an image, not a folder of images; its folder: dataset.path={file.parent}"
    if compression := _compression(head):
        return f"compressed with {compression}, but no tar file, or not complete"
    if head.startswith((b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ\0")):
        return "an archive of a kind that is not read; unpack it and give the folder"
    return "not a folder, and neither a zip file nor a tar file"


def left_out_text(found: Found, root: Path) -> str:
    """Return "; 8 .heic (what reads them), 3 .txt": the other files, the most frequent first."""
    most = sorted(found.left_out.items(), key=lambda item: (-item[1], item[0]))[:8]
    texts = [f"{count:,} {reason}{_advice(reason, found, root)}" for reason, count in most]
    return f"; {', '.join(texts)}" if texts else ""


def _advice(reason: str, found: Found, root: Path) -> str:
    """Return what helps with files that are left out, in brackets; or an empty text."""
    text = formats.advice(reason)
    first = root / found.first[reason]
    if not text and first.is_file() and reason.startswith("."):
        if archive_kind(first) is not None:
            text = f"dataset.path={first} reads it"
        elif reason in {".7z", ".rar", ".xz", ".txz"}:
            text = "unpack it"
        elif reason in {".parquet", ".arrow"}:
            text = "dataset.type=huggingface reads them"
    return f" ({text})" if text else ""


def tell_of_unread(found: Found, root: Path, where: str) -> None:
    """Give a notice about images that are not read, and what would read them."""
    for reason, count in found.left_out.items():
        if text := formats.advice(reason):
            message = f"{where}: {root}: {count:,} {reason} left out: {text}"
            warnings.warn(message, vgx.Notice, stacklevel=3)
