"""Local files that the library `datasets` opens: image files, zips of them, tars, tables.

It is given the files themselves, never a folder, a pattern or a README.md; it is offline; and each
file is looked at before: how much it becomes is bounded by what it is.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin import hub
from vgx_builtin.archives import require_size
from vgx_builtin.columns import LibraryRows
from vgx_builtin.image_files import MAX_BYTES, described, open_regular
from vgx_builtin.layout import rows_by_split
from vgx_builtin.pages import largest_page
from vgx_builtin.zips import Zip

MODULES = ("imagefolder", "webdataset", "json", "csv")
"""The loaders of the library that are used; the others give no images, or run what they read."""
MAX_TABLE = 2**28
MAX_LINE = 2**24
MAX_JSON = 2**25
"""The largest table of text, its longest line, and the largest JSON file in one piece, in bytes."""
MAX_COLUMNS = 2000
"""The most columns of a table of text, or names in JSON: the library takes long for each."""
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")
_DECODED = (".pth", ".npz", ".npy", ".ten", ".tb", ".mp", ".msg", ".cbor")
"""Files in a tar that the library would unpack or decode, to any size."""


def module_for(splits: Mapping[str, list[Path]]) -> tuple[str, dict[str, Any]]:
    """Return the loader of the library for some files, and its settings. Raises `DataError`."""
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.load import infer_module_for_data_files

    for file in (file for files in splits.values() for file in files):
        if "::" in str(file) or "://" in str(file):
            raise vgx.DataError(f"{file.name}: '::' or '://' in its path is not understood")
        if file.suffix == ".zip":
            _check_zip(file)
    lists = {
        split: DataFilesList([str(file) for file in files], [()] * len(files))
        for split, files in splits.items()
    }
    try:
        module, settings = infer_module_for_data_files(DataFilesDict(lists))
    except (
        ValueError,
        FileNotFoundError,
    ) as error:  # several kinds of files, or none that it knows
        raise vgx.DataError(described(error)) from error
    return module, settings


def open_with_library(
    splits: Mapping[str, list[Path]], wanted: str, state: str, module: str, settings: dict[str, Any]
) -> LibraryRows:
    """Return the rows of a split, or of slices: `train[:1000]`; `state` changes with the files.

    Raises `DataError` for files that cannot be opened, `ValueError` for a split that is not there.
    """
    import datasets
    from datasets.data_files import DataFilesList
    from datasets.packaged_modules import _MODULE_TO_EXTENSIONS, _MODULE_TO_METADATA_FILE_NAMES

    if module not in MODULES:
        raise vgx.DataError(f"files of the kind '{module}' hold no images")
    lists = {}
    for split, files in splits.items():
        every = DataFilesList([str(file) for file in files], [(state,)] * len(files))
        lists[split] = every.filter(
            extensions=_MODULE_TO_EXTENSIONS[module],
            file_names=_MODULE_TO_METADATA_FILE_NAMES[module],
        )
        for file in lists[split]:
            _check(Path(file), module)
    try:
        found = hub.load(path=module, data_files=lists, split=None, offline=True, **settings)
    except Exception as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise vgx.DataError("no rows in these files") from error
        advice = "; an archive of image files is a data set of type image-folder"
        raise vgx.DataError(described(cause) + advice * (module == "webdataset")) from error
    counts = {split: len(rows) for split, rows in found.items()}
    slices = datasets.ReadInstruction.from_spec(wanted).to_absolute(counts)
    parts = [found[part.splitname].select(range(part.from_, part.to)) for part in slices]
    if not sum(len(part) for part in parts):
        raise vgx.DataError(f"no rows in this split; {rows_by_split(counts)}")
    return LibraryRows(datasets.concatenate_datasets(parts))


def _check(file: Path, module: str) -> None:
    """Raise `DataError` for a file that becomes much more than it is."""
    ending = file.suffix.lower()
    if ending in _PACKED and (ending, module) != (".zip", "imagefolder"):
        raise vgx.DataError(f"{file.name}: compressed; unpack it first")
    if ending == ".zip":
        _check_zip(file)
    elif ending == ".tar":
        _check_tar(file)
    elif ending == ".parquet":
        _check_parquet(file)
    elif ending in (".csv", ".tsv", ".json", ".jsonl", ".ndjson"):
        _check_table(file, MAX_JSON if ending == ".json" else MAX_TABLE)


def _check_zip(file: Path) -> None:
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
