"""Image files: which formats are read, where they lie, and whether files changed."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from PIL import Image

NonRgb = Literal["skip", "convert"]

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats of pixels that Pillow reads: no programs (EPS), no metafiles, no data formats."""
MAX_PIXELS = 2**26
"""Images of more pixels are not decoded: 8,192 x 8,192, 256 MiB in memory."""
POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has not fetched."""
IS_POINTER = "a Git LFS pointer and not the file itself; git lfs pull fetches it"
MAX_BYTES = 2**28
"""Image files that are larger are not read; some decoders read a file as a whole."""
MAX_READS = 10**6
"""An image is read in fewer steps; some decoders look through a whole file byte by byte."""


def endings() -> set[str]:
    """Return the endings of image files in lower case: ".jpg" and others."""
    from PIL import Image

    return {end for end, name in Image.registered_extensions().items() if name in FORMATS}


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder. Links to files are files; links to folders are not followed.

    Raises `DataError` for a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise vgx.DataError(f"{error.filename}: {error.strerror}") from error

    for inner, _, names in os.walk(folder, onerror=fail):
        yield from (Path(inner, name) for name in names)


def has_parquet(folder: Path) -> bool:
    """Return whether a folder has parquet files, as data sets in the hub's layout do."""
    return any(file.suffix == ".parquet" for file in files_below(folder))


def tell_of_links(files: list[Path], root: Path, where: str) -> None:
    """Give a notice when some of the files are links that lead out of the folder `root`."""
    inside = os.path.realpath(root)
    links = ((file, Path(os.path.realpath(file))) for file in files if file.is_symlink())
    out = [(file, target) for file, target in links if not target.is_relative_to(inside)]
    if out:
        first = f"{out[0][0].relative_to(root)} -> {out[0][1]}"
        text = f"{where}: {root}: links that lead out of this folder: {len(out):,}, such as {first}"
        warnings.warn(text, vgx.Notice, stacklevel=2)


def open_regular(file: Path, name: str) -> IO[bytes]:
    """Open a file to read it; `name` is its name in messages.

    Raises `DataError` when it cannot be opened, and for a folder, a pipe or a device: none of these
    is waited for.
    """
    try:
        return vgx.open_regular(file)
    except vgx.StorageError:
        raise vgx.DataError(f"{name}: not a regular file") from None
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        raise vgx.DataError(f"{name}: {getattr(error, 'strerror', error)}") from error


def digest(files: list[Path], root: Path) -> str:
    """Return a hash of the names, sizes and times of files: it changes when one of them does.

    One of the times is the ctime, which nobody can set: new content under the old name, size and
    time of change is noticed. It changes when a file is copied, or its permissions are set, too.
    Raises `DataError` for a file whose status cannot be read.
    """
    sha256 = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
        except OSError as error:
            raise vgx.DataError(f"{file}: {error.strerror}") from error
        sha256.update(os.fsencode(file.relative_to(root)))
        sha256.update(f"|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}\n".encode())
    return sha256.hexdigest()


def not_rgb(image: Image.Image, channels: int) -> str:
    """Return why an image is not plain RGB, or an empty text when it is, or when that is asked for.

    Grey is asked for with other channels than RGB and RGBA, and alpha with RGBA.
    """
    if image.has_transparency_data:
        return "" if channels == 4 else "with alpha"
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        return "greyscale" if channels in (3, 4) else ""
    return "" if image.mode == "RGB" else f"in mode {image.mode}"


def described(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no reason given'}"
