"""What files become when the library `datasets` opens them, looked at before: never any size."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import vgx
from vgx_builtin.files.archives import require_size
from vgx_builtin.files.image_files import MAX_BYTES, described, open_regular
from vgx_builtin.files.zips import Zip
from vgx_builtin.rows.pages import largest_page

MAX_TABLE = 2**28
MAX_LINE = 2**24
MAX_JSON = 2**25
"""The largest table of text, its longest line, and the largest JSON file in one piece, in bytes."""
MAX_COLUMNS = 2000
"""The most columns of a table of text, or names in JSON: the library takes long for each."""
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")
_DECODED = (".pth", ".npz", ".npy", ".ten", ".tb", ".mp", ".msg", ".cbor")
"""Files in a tar that the library would unpack or decode, to any size."""


def check_file(file: Path, module: str) -> None:
    """Raise `DataError` for a file that becomes much more than it is."""
    ending = file.suffix.lower()
    if ending in _PACKED and (ending, module) != (".zip", "imagefolder"):
        raise vgx.DataError(f"{file.name}: compressed; unpack it first")
    if ending == ".zip":
        check_zip(file)
    elif ending == ".tar":
        _check_tar(file)
    elif ending == ".parquet":
        _check_parquet(file)
    elif ending in (".csv", ".tsv", ".json", ".jsonl", ".ndjson"):
        _check_table(file, MAX_JSON if ending == ".json" else MAX_TABLE)


def check_zip(file: Path) -> None:
    """Raise `DataError` for a zip that is damaged, or whose table of images becomes too large."""
    for info in Zip(file).zip.infolist():
        if Path(info.filename).name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
            require_size(info.filename, info.file_size, info.compress_size)
            # Python's own reader unpacks other methods in one piece, to any size.
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if info.file_size > MAX_LINE or not plain or info.filename.endswith(".parquet"):
                place = f"{info.filename} in {file.name}"
                raise vgx.DataError(f"{place}: a table of this kind or size is not read in a zip")


def _check_tar(file: Path) -> None:
    try:
        with (
            open_regular(file, file.name) as opened,
            tarfile.open(fileobj=opened, mode="r:") as tar,
        ):
            for member in tar:
                place = f"{member.name} in {file.name}"
                if member.issparse() or member.size > MAX_BYTES:
                    raise vgx.DataError(f"{place}: {member.size:,} bytes are too many")
                if member.isreg() and member.name.lower().endswith((*_PACKED, *_DECODED)):
                    raise vgx.DataError(f"{place}: not an image, and not read")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise vgx.DataError(f"{file.name}: {described(error)}") from error


def _check_parquet(file: Path) -> None:
    import pyarrow.parquet

    with open_regular(file, file.name) as opened:
        try:
            about = pyarrow.parquet.ParquetFile(opened).metadata
            for group in (about.row_group(index) for index in range(about.num_row_groups)):
                for index in range(group.num_columns):
                    largest_page(opened, group.column(index))
        except (vgx.DataError, MemoryError):
            raise
        # The library raises many kinds of error for a damaged file.
        except Exception as error:
            raise vgx.DataError(f"{file.name}: {described(error)}") from error


def _check_table(file: Path, most: int) -> None:
    """Raise `DataError` for a table of text that is too large, or has too many columns."""
    size, names, separated = 0, set[bytes](), file.suffix.lower() in (".csv", ".tsv")
    with open_regular(file, file.name) as opened:
        while line := opened.readline(MAX_LINE + 1):
            if separated and not size:
                names.update(b"%d" % number for number in range(len(re.split(rb"[,\t]", line))))
            elif not separated:
                names.update(match[1] for match in re.finditer(rb'"([^"\n]{0,200})"\s*:', line))
            size += len(line)
            if size > most or (len(line) > MAX_LINE and most == MAX_TABLE):
                message = "too large for a table of text; write it as parquet"
                raise vgx.DataError(f"{file.name}: {message}")
            if len(names) > MAX_COLUMNS:
                raise vgx.DataError(f"{file.name}: more than {MAX_COLUMNS:,} columns")
