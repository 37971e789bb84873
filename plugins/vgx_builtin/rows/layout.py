"""The hub's layout of a local folder: which of its files are which split, by their names.

The rules are those of the library `datasets`
(https://huggingface.co/docs/datasets/repository_structure). It applies them here to the names of
files that are there; it looks at no folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, Self, TypeVar

import vgx
from vgx_builtin.files.image_files import described
from vgx_builtin.rows.columns import features_of
from vgx_builtin.rows.parquet import LocalFile, ParquetFile, ParquetRows, Piece
from vgx_builtin.rows.readme import chosen, config_of, configs_in, matching

_HIDDEN = re.compile(r"(^|/)(\.|__[^/]*/)")  # or like __pycache__
_ABOUT = ("README.md", "config.json", "dataset_info.json", "dataset_infos.json", "state.json",
          "dataset_dict.json")  # fmt: skip
"""Files that are about a data set, and no data."""


def splits_of(root: Path, files: list[Path], config: str | None) -> dict[str, list[Path]]:
    """Return the files of each split in a folder; `files` are all that are below it.

    Raises `DataError` when there are none, or several configurations and no name of one.
    """
    below = [file.relative_to(root).as_posix() for file in files]
    names = sorted(name for name in below if not _HIDDEN.search(name) and _is_data(name))
    configs = configs_in(root / "README.md")
    if not configs and config not in (None, "default"):
        raise vgx.DataError(f"no config '{config}'; README.md names no configs")
    about = config_of(configs, config) if configs else {}
    # Paths in a configuration are relative to its folder.
    data_dir = str(about.get("data_dir") or "")
    start = f"{PurePosixPath(data_dir)}/" if data_dir else ""
    names = [name.removeprefix(start) for name in names if name.startswith(start)]
    if not names:
        where = f" below {start}" if start else ""
        raise vgx.DataError(f"no file{where} that can be opened as rows; {_what_is(below)}")
    if "data_files" in about:
        splits = chosen(about["data_files"], names)
    else:
        splits = _saved(names, below) or _by_name(names)
    return {split: [root / start / name for name in inner] for split, inner in splits.items()}


def _is_data(name: str) -> bool:
    from datasets.packaged_modules import _EXTENSION_TO_MODULE

    path = PurePosixPath(name)
    endings = [ending.lower() for ending in path.suffixes]
    known = any(ending == ".zip" or ending in _EXTENSION_TO_MODULE for ending in endings)
    return known and path.name not in _ABOUT


def _what_is(names: list[str]) -> str:
    """Return how many files there are by their endings."""
    endings = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in names)
    listed = [f"{count:,} {ending}" for ending, count in endings.most_common(5)]
    return f"there are: {', '.join(listed)}" if listed else "the folder is empty"


def _saved(names: list[str], below: list[str]) -> dict[str, list[str]]:
    """Return the files of each split in a folder that `save_to_disk` has written."""
    folders = {str(PurePosixPath(name).parent) for name in below if name.endswith("state.json")}
    splits: dict[str, list[str]] = {}
    for name in names:
        folder = str(PurePosixPath(name).parent)
        if name.endswith(".arrow") and folder in folders:
            splits.setdefault("train" if folder == "." else folder, []).append(name)
    return splits


def _by_name(names: list[str]) -> dict[str, list[str]]:
    """Return the files of each split by their names, or all as `train` when these say nothing.

    Where there are parquet files, the others are passed over.
    """
    from datasets.data_files import _get_data_files_patterns

    rows = [name for name in names if re.search(r"(?<!metadata)\.parquet$", name)]
    names = rows or names
    try:
        patterns = _get_data_files_patterns(lambda pattern: matching(pattern, names))
    except (ValueError, AssertionError) as error:  # what is no name of a split
        raise vgx.DataError(f"names of files and splits: {described(error)}") from error
    found = {
        str(split): [name for pattern in inner for name in matching(pattern, names)]
        for split, inner in patterns.items()
    }
    return {split: list(dict.fromkeys(inner)) for split, inner in found.items()}


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
    pieces = rows_of(found, wanted)
    return ParquetRows(pieces, features_of(pieces[0].about.schema.to_arrow_schema()))


class Sliceable(Protocol):
    """Neighbouring rows, such as a `Piece` or a `pyarrow.RecordBatch`."""

    def __len__(self) -> int: ...

    def slice(self, offset: int, length: int) -> Self:
        """Return some of the rows."""


T = TypeVar("T", bound=Sliceable)


def rows_of(found: Mapping[str, Sequence[T]], wanted: str) -> list[T]:
    """Return the parts of all splits that a split has, or slices.

    Raises `DataError` when they have no rows, `ValueError` for a split that is not there.
    """
    import datasets

    counts = {split: sum(map(len, parts)) for split, parts in found.items()}
    slices = datasets.ReadInstruction.from_spec(wanted).to_absolute(counts)
    parts = [part for each in slices for part in cut(found[each.splitname], each.from_, each.to)]
    if not parts:
        raise vgx.DataError(f"no rows in this split; {rows_by_split(counts)}")
    return parts


def rows_by_split(counts: Mapping[str, int]) -> str:
    """Return the splits and their numbers of rows as a text."""
    return "rows: " + ", ".join(f"{split} {count:,}" for split, count in list(counts.items())[:20])


def pieces_of(file: ParquetFile) -> list[Piece]:
    """Return the row groups of a file. Raises `DataError`."""
    import pyarrow.parquet

    with file.open() as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if opened.read(4) != b"PAR1":
            raise vgx.DataError(f"{file.name}: not a parquet file")
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


def cut(parts: Sequence[T], low: int, high: int) -> Iterator[T]:
    """Yield the rows from `low` to before `high`."""
    start = 0
    for part in parts:
        first, last = max(low - start, 0), min(high - start, len(part))
        if first < last:
            yield part.slice(first, last - first)
        start += len(part)
