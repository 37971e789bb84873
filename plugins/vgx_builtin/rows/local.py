"""Local data sets in rows: which files they have, and what reads them."""

from __future__ import annotations

import os
from pathlib import Path

import vgx
from vgx_builtin.files import formats
from vgx_builtin.files.image_files import digest, open_regular
from vgx_builtin.files.links import tell_of_links
from vgx_builtin.files.walk import files_below
from vgx_builtin.rows.arrow import open_arrow
from vgx_builtin.rows.columns import Rows
from vgx_builtin.rows.layout import open_split, splits_of
from vgx_builtin.rows.library import module_for, open_with_library

FILES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".tar", ".zip")
"""Endings of files that are opened when one is given alone."""


ROWS = (".parquet", ".arrow")


def has_rows(place: Path) -> bool:
    """Return whether a file or folder has rows in files that hold nothing else."""
    files = files_below(place) if place.is_dir() else [place]
    return any(file.suffix in ROWS for file in files)


def open_local(path: Path, split: str, config: str | None) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the rows of a folder or file, a hash of its files, and where rows may name files.

    Raises `DataError` for what cannot be opened, `ValueError` for a split that is not there.
    """
    if not path.is_dir():
        return _open_file(path, split)
    inside = Path(os.path.realpath(path))
    files = sorted(
        file
        for file in files_below(path)
        # A pipe or a device is a fault only where it is called like data.
        if (file.is_file() or file.suffix in ROWS)
        and Path(os.path.realpath(file.parent)).is_relative_to(inside)
    )
    tell_of_links(files, path, "dataset huggingface")
    splits = splits_of(path, files, config)
    data = {file for inner in splits.values() for file in inner}
    # A path in a row may be relative to the file of the row.
    folders = (path, *sorted({file.parent for file in data} - {path}))
    return _open_splits(splits, split, state := digest(files, path)), state, folders


def _open_file(file: Path, split: str) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the same for a file of rows. Raises `DataError` for another one, such as an image."""
    with open_regular(file, file.name) as opened:
        start = opened.read(formats.HEAD)
    splits, state = {"train": [file]}, digest([file], file.parent)
    if start[:4] == b"PAR1":  # whatever its name
        return open_split(splits, split), state, ()
    if formats.kind_of(start):
        raise vgx.DataError(
            "one image is no data set; open the folder of the images: "
            f"--set dataset.type=image-folder --set dataset.path={file.parent}"
        )
    if file.suffix.lower() not in FILES:
        raise vgx.DataError(f"not a file of rows; those that are opened: {', '.join(FILES)}")
    # The rows that the library makes of an archive name files in it; other rows name no files.
    folders = (file.parent / file.name,) if file.suffix == ".zip" else ()
    return _open_splits(splits, split, state), state, folders


def _open_splits(splits: dict[str, list[Path]], split: str, state: str) -> Rows:
    endings = {file.suffix for inner in splits.values() for file in inner}
    if endings <= {".parquet"}:
        return open_split(splits, split)
    if endings <= {".arrow"}:
        return open_arrow(splits, split)
    module, settings = module_for(splits)
    return open_with_library(splits, split, state, module, settings)
