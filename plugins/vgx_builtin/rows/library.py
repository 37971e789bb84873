"""Local files that the library `datasets` opens: image files, zips of them, tars, tables.

It is given the files themselves, never a folder, a pattern or a README.md; it is offline; and each
file is looked at before: how much it becomes is bounded by what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin import hub
from vgx_builtin.files.image_files import described
from vgx_builtin.rows.columns import LibraryRows
from vgx_builtin.rows.file_checks import check_file, check_zip
from vgx_builtin.rows.layout import rows_by_split

MODULES = ("imagefolder", "webdataset", "json", "csv")
"""The loaders of the library that are used; the others give no images, or run what they read."""


def module_for(splits: Mapping[str, list[Path]]) -> tuple[str, dict[str, Any]]:
    """Return the loader of the library for some files, and its settings. Raises `DataError`."""
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.load import infer_module_for_data_files

    for file in (file for files in splits.values() for file in files):
        if "::" in str(file) or "://" in str(file):
            raise vgx.DataError(f"{file.name}: '::' or '://' in its path is not understood")
        if file.suffix == ".zip":
            check_zip(file)
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
            check_file(Path(file), module)
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
