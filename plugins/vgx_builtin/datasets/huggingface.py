"""Data sets of the Hugging Face hub, or local ones in its layout."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

import vgx
from vgx_builtin import hub
from vgx_builtin.columns import LibraryRows, Rows, image_column
from vgx_builtin.image_files import (
    NonRgb,
    described,
    digest,
    files_below,
    has_parquet,
    tell_of_links,
)
from vgx_builtin.labels import LabelledSource, column_of_labels
from vgx_builtin.layout import open_split, splits_of
from vgx_builtin.row_images import RowImages


class HuggingFace(vgx.Dataset, type="huggingface"):
    """A data set of the Hugging Face hub, or a local parquet file, or a folder with such files.

    In a local folder the names of its files say which split they are, as on the hub, or `configs`
    in its README.md does. Without a network, only data sets in the hub's cache or in a local folder
    work.
    """

    path: str
    """`owner/name` on the hub, a local folder, or a local parquet file."""
    split: str = "train"
    """The split; slices work too: `train[:1000]`, `train[90%:]`."""
    column: str | None = None
    """The column with the images; not needed when there is only one."""
    non_rgb: NonRgb = "skip"
    """What to do with greyscale images and those with alpha: leave out (`skip`), or use
    (`convert`). Grey is never left out where `image.channels` is 1, nor alpha where it is 4."""
    revision: str | None = None
    """A branch, tag or commit of the hub's repository."""
    limit: PositiveInt | None = None
    """Take only this many rows, the first ones."""
    label: str | None = None
    """The column with the labels, whole numbers or the hub's class labels; `null`: no labels."""
    fallback: vgx.Dataset | None = None
    """Another dataset, used with a notice when the hub can't be reached and nothing is cached."""

    @classmethod
    def fields_for(cls, place: str) -> dict[str, Any] | None:
        """Open a parquet file, a folder with such files, or `owner/name` on the hub."""
        local = Path(place)
        if local.exists():
            opens = has_parquet(local) if local.is_dir() else local.suffix == ".parquet"
            return {"path": str(local)} if opens else None
        return {"path": place} if re.fullmatch(r"\w[\w.-]*/[\w.-]+", place) else None

    def asks(self) -> str:
        """Return that the hub is asked, unless the path is a local one."""
        # `Path.expanduser` raises an error for a user who does not exist.
        local = Path(os.path.expanduser(self.path))  # noqa: PTH111
        return "" if local.exists() else "the hub, with your token if you are logged in"

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """Open the rows. Raises `HubError` or `DataError`, which say what would work."""
        # `Path.expanduser` raises an error for a user who does not exist.
        local, fallback = Path(os.path.expanduser(self.path)), self.fallback  # noqa: PTH111
        if local.exists():
            rows, fingerprint, folders = _load_local(local, self.split)
        elif self.path.startswith((".", "/", "~")) or self.path.count("/") != 1:
            where = f"no such folder or file: {local.absolute()}"
            raise vgx.DataError(f"dataset huggingface: {self.path}: {where}")
        else:
            try:
                rows, fingerprint, folders = _load_hub(self.path, self.split, self.revision)
            except vgx.HubError as error:
                if fallback is None or not isinstance(error, hub.UnreachableError):
                    raise
                text = f"{error}. Using the fallback instead: {fallback.type}"
                warnings.warn(text, vgx.Notice, stacklevel=2)
                return fallback.build(image)
        column = image_column(rows.features, self.column, self.path)
        policy = f"{fingerprint}|{self.split}|{column}|{self.non_rgb}|{self.limit}"
        name = f"huggingface-{hashlib.sha256(policy.encode()).hexdigest()[:32]}"
        count = min(len(rows), self.limit or len(rows))
        source = RowImages(rows.cells(column), count, folders, self.non_rgb, name, image.channels)
        if self.label is None:
            return source
        where = f"dataset huggingface: {self.path}"
        labels = column_of_labels(rows, self.label, count, where, image)
        return LabelledSource(source, labels.__getitem__, f"{name}-label-{self.label}")


def _load_local(path: Path, split: str) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the rows of a folder or file, a hash of its files, and where rows may name files."""
    where = f"dataset huggingface: {path}, split {split}"
    try:
        if not path.is_dir():
            return open_split({"train": [path]}, split), digest([path], path.parent), ()
        files = sorted(files_below(path))
        tell_of_links(files, path, "dataset huggingface")
        return open_split(splits_of(path, files), split), digest(files, path), (path,)
    # The library has a ValueError for a split that is not there.
    except (vgx.DataError, ValueError) as error:
        raise vgx.DataError(f"{where}: {error}") from error


def _load_hub(path: str, split: str, revision: str | None) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the same for a data set of the hub, or its cache when the hub can't be reached."""
    named = f"{path}, split {split}" + (f", revision {revision}" if revision else "")
    elsewhere = f"nor is there a folder {Path(path).absolute()}"
    with hub.bounded() as online:
        try:
            rows = hub.load(path=path, split=split, revision=revision, offline=not online)
        except Exception as error:
            silent = isinstance(error, ConnectionError | hub.UnreachableError)
            if hub.is_hub_error(error) and (not online or silent):
                raise hub.UnreachableError(
                    f"dataset huggingface: {named}: not in the cache, and the hub can't be "
                    f"reached, {elsewhere} "
                    "(offline, these work: dataset.path=LOCAL_FOLDER, dataset.fallback=drawn-faces)"
                ) from error
            message = f"dataset huggingface: {named}: {described(error)}; {elsewhere}"
            raise vgx.HubError(message) from error
    files = "|".join(sorted(Path(file["filename"]).parent.name for file in rows.cache_files))
    return LibraryRows(rows), f"{path}|{revision}|{files}", hub.folders()
