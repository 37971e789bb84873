"""The hub's layout of a local folder: which parquet files are which split, by their names.

The rules are those of the library `datasets`
(https://huggingface.co/docs/datasets/repository_structure). They are applied to the names of files
that are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import vgx
from vgx_builtin.columns import features_of
from vgx_builtin.image_files import described
from vgx_builtin.parquet import LocalFile, ParquetFile, ParquetRows, Piece
from vgx_builtin.readme import configured, matching

_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*")
_WORDS = {
    "train": ["train", "training"],
    "validation": ["validation", "valid", "dev", "val"],
    "test": ["test", "testing", "eval", "evaluation"],
}
# In this order the library takes them: first those that have a word in the name of a folder.
_IN_FOLDERS = ("**/{w}/**/*", "**/{w}[{s}]*/**/*", "**/*[{s}]{w}/**/*", "**/*[{s}]{w}[{s}]*/**/*")
_IN_NAMES = ("**/{w}[{s}]*", "**/*[{s}]{w}[{s}]*")
_BETWEEN = "-._ 0-9"


def splits_of(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return the parquet files of each split in a folder; `files` are all that are below it.

    Raises `DataError` when there are none.
    """
    names = sorted(
        name
        for file in files
        if (name := file.relative_to(root).as_posix()).endswith(".parquet")
        and not re.search(r"(^|/)(\.|__[^/]*/)", name)  # hidden, or like __pycache__
    )
    if not names:
        raise vgx.DataError(
            "no parquet file in it. Only parquet files are opened here as rows of images; a folder "
            "of image files is a data set of type image-folder"
        )
    chosen = configured(root / "README.md", names) or _by_name(names)
    return {split: [root / name for name in inner] for split, inner in chosen.items()}


def _by_name(names: list[str]) -> dict[str, list[str]]:
    """Return the files of each split by their names, or all as `train` when these say nothing."""
    shards: dict[str, list[str]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            shards.setdefault(match[1], []).append(name)
    if shards:
        return shards
    for patterns in (_IN_FOLDERS, _IN_NAMES):
        splits = {
            split: [
                name
                for word in words
                for pattern in patterns
                for name in matching(pattern.format(w=word, s=_BETWEEN), names)
            ]
            for split, words in _WORDS.items()
        }
        if any(splits.values()):
            return {split: list(dict.fromkeys(found)) for split, found in splits.items() if found}
    return {"train": names}


def open_split(splits: Mapping[str, list[Path]], wanted: str) -> ParquetRows:
    """Return the rows of a split, or of slices: `train[:1000]`, `train[90%:]+test`.

    Raises `DataError` for a file that is none, `ValueError` for a split that is not there.
    """
    found = {
        split: [piece for file in files for piece in pieces_of(LocalFile(file))]
        for split, files in splits.items()
    }
    return cut_split(found, wanted)


def cut_split(found: Mapping[str, list[Piece]], wanted: str) -> ParquetRows:
    """Return the rows of a split, or of slices, from the row groups of all splits."""
    import datasets

    counts = {split: sum(piece.count for piece in pieces) for split, pieces in found.items()}
    slices = datasets.ReadInstruction.from_spec(wanted).to_absolute(counts)
    chosen = [part for each in slices for part in _cut(found[each.splitname], each.from_, each.to)]
    if not chosen:
        raise vgx.DataError("no rows in this split")
    return ParquetRows(chosen, features_of(chosen[0].about.schema.to_arrow_schema()))


def pieces_of(file: ParquetFile) -> list[Piece]:
    """Return the row groups of a file. Raises `DataError`."""
    import pyarrow.parquet

    with file.open() as opened:
        size = opened.seek(0, os.SEEK_END)
        try:
            about = pyarrow.parquet.ParquetFile(opened).metadata
            counts = [about.row_group(index).num_rows for index in range(about.num_row_groups)]
        except MemoryError:
            raise
        # The library raises many kinds of error for a damaged file.
        except Exception as error:
            raise vgx.DataError(f"{file.name}: {described(error)}") from error
    if not 0 <= sum(counts) <= size or min(counts, default=0) < 0:
        raise vgx.DataError(f"{file.name}: {sum(counts):,} rows in {size:,} bytes can't be images")
    return [Piece(file, about, index, 0, count) for index, count in enumerate(counts)]


def _cut(pieces: list[Piece], low: int, high: int) -> Iterator[Piece]:
    """Yield the rows from `low` to before `high`."""
    start = 0
    for piece in pieces:
        first, last = max(low - start, 0), min(high - start, piece.count)
        if first < last:
            yield replace(piece, first=first, count=last - first)
        start += piece.count
