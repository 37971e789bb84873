"""Data sets of the Hugging Face hub, or local ones in its layout."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

import vgx
from vgx_builtin import hub
from vgx_builtin.files.formats import missing_readers
from vgx_builtin.files.image_files import NonRgb, described
from vgx_builtin.files.image_places import existing
from vgx_builtin.labels.sources import LabelledSource, column_of_labels, evenly
from vgx_builtin.rows.arrays import image_cells
from vgx_builtin.rows.columns import LibraryRows, Rows
from vgx_builtin.rows.hub_names import from_address, is_name
from vgx_builtin.rows.image_columns import image_column
from vgx_builtin.rows.local import has_rows, open_local
from vgx_builtin.rows.remote import open_remote
from vgx_builtin.rows.row_images import RowImages
from vgx_builtin.rows.streams import open_stream


class HuggingFace(vgx.Dataset, type="huggingface"):
    """A data set of the Hugging Face hub, or a local folder or file in one of its layouts.

    The library `datasets` says which files are which split, and opens what is neither parquet nor
    Arrow. Without a network, only data sets in the hub's cache or in a local folder work.
    """

    path: str
    """`owner/name` on the hub or its address there, a local folder, or a local file of rows."""
    config: str | None = None
    """The configuration, where a data set has several; the message lists them."""
    split: str = "train"
    """The split; slices work too: `train[:1000]`, `train[90%:]`."""
    column: str | None = None
    """The column with the images, or a part of one: `images.0`, `pair.left`; not needed when there
    is only one."""
    non_rgb: NonRgb = "skip"
    """What to do with greyscale images and those with alpha: leave out (`skip`), or use
    (`convert`). Grey is never left out where `image.channels` is 1, nor alpha where it is 4."""
    revision: str | None = None
    """A branch, tag or commit of the hub's repository."""
    limit: PositiveInt | None = None
    """Take only this many rows, the first ones; with labels, as many of each class as there are,
    evenly, the first ones of each."""
    label: str | None = None
    """The column with the labels: classes of the hub, words, whole numbers or truth values; `null`:
    no labels."""
    stream: bool = False
    """Read the images while training, row group by row group, instead of decoding all of them into
    the cache before: for more images than the disk holds. Only parquet files can be streamed."""
    fallback: vgx.Dataset | None = None
    """Another dataset, used with a notice when the hub can't be reached and nothing is cached."""

    @classmethod
    def fields_for(cls, place: str) -> dict[str, Any] | None:
        """Open local files of rows, `owner/name` on the hub, or an address of the hub."""
        local = Path(place)
        if local.exists():
            return {"path": str(local)} if has_rows(local) else None
        if existing(local).is_file():  # a folder in an archive
            return None
        return from_address(place) or ({"path": place} if "/" in place and is_name(place) else None)

    def asks(self) -> str:
        """Return that the hub is asked, unless the path is a local one."""
        # `Path.expanduser` raises an error for a user who does not exist.
        local = Path(os.path.expanduser(self.path))  # noqa: PTH111
        return "" if local.exists() else "the hub, with your token if you are logged in"

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """Open the rows. Raises `HubError` or `DataError`, which say what would work."""
        asked = self._taken_apart()
        # `Path.expanduser` raises an error for a user who does not exist.
        local = Path(os.path.expanduser(asked.path))  # noqa: PTH111
        where = f"dataset huggingface: {asked.path}"
        if local.exists() and asked.path == self.path:
            rows, fingerprint, folders = _load_local(local, asked.split, asked.config)
        elif asked.path.startswith((".", "/", "~")) or not is_name(asked.path):
            raise vgx.DataError(f"{where}: no such folder or file: {local.absolute()}")
        else:
            try:
                rows, fingerprint, folders = _load_hub(asked)
            except vgx.HubError as error:
                if self.fallback is None or not isinstance(error, hub.UnreachableError):
                    raise
                text = f"{error}. Using the fallback instead: {self.fallback.type}"
                warnings.warn(text, vgx.Notice, stacklevel=2)
                return self.fallback.build(image)
        column = image_column(rows, self.column, where)
        if self.stream:
            commit = "" if local.exists() else fingerprint
            return open_stream(
                rows, where, column, self.label, image, self.non_rgb, self.limit, commit
            )
        policy = f"{fingerprint}|{asked.split}|{column}|{self.non_rgb}|{self.limit}"
        policy += (f"|config {asked.config}" if asked.config else "") + missing_readers()
        name = f"huggingface-{hashlib.sha256(policy.encode()).hexdigest()[:32]}"
        count = min(len(rows), self.limit or len(rows)) if self.label is None else len(rows)
        cells = image_cells(rows, column)
        source = RowImages(cells, count, folders, self.non_rgb, image.channels, name)
        if self.label is None:
            return source
        labels = column_of_labels(rows, self.label, where, image)
        labelled = f"{name}-label-{self.label}" + ("-evenly" if self.limit else "")
        return LabelledSource(source, evenly(labels.numbers, self.limit), labels, labelled)

    def _taken_apart(self) -> HuggingFace:
        """Return this data set with the parts of an address of the hub in their fields."""
        found = from_address(self.path)
        for key, value in found.items():
            own = getattr(self, key)
            if key != "path" and own not in (type(self).model_fields[key].default, value):
                message = f"dataset.path: {self.path} says {key} {value}"
                raise vgx.RecipeError(f"{message}, and dataset.{key} is {own}; remove one of them")
        return self.model_copy(update=found)


def _load_local(path: Path, split: str, config: str | None) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the rows of a folder or file, a hash of its files, and where rows may name files."""
    where = f"dataset huggingface: {path}, split {split}" + (f", config {config}" if config else "")
    try:
        return open_local(path, split, config)
    # The library has a ValueError for a split that is not there.
    except (vgx.DataError, ValueError) as error:
        raise vgx.DataError(f"{where}: {error}") from error


def _load_hub(asked: HuggingFace) -> tuple[Rows, str, tuple[Path, ...]]:
    """Return the same for a data set of the hub, or its cache when the hub can't be reached."""
    path, revision, config = asked.path, asked.revision, asked.config
    named = f"{path}, split {asked.split}" + (f", revision {revision}" if revision else "")
    named += f", config {config}" if config else ""
    elsewhere = f"nor is there a folder {Path(path).absolute()}"
    if "/" not in path:
        elsewhere += "; names on the hub are owner/name"
    with hub.bounded() as online:
        try:
            if asked.stream:
                return *open_remote(path, asked.split, revision, config), ()
            rows = hub.load(
                path=path, name=config, split=asked.split, revision=revision, offline=not online
            )
        except vgx.DataError as error:
            raise vgx.DataError(f"dataset huggingface: {named}: {error}") from error
        except Exception as error:
            silent = isinstance(error, ConnectionError | hub.UnreachableError)
            if hub.is_hub_error(error) and (not online or silent):
                raise hub.UnreachableError(
                    f"dataset huggingface: {named}: not in the cache, and the hub can't be "
                    f"reached, {elsewhere} "
                    "(offline, these work: dataset.path=LOCAL_FOLDER, dataset.fallback=drawn-faces)"
                ) from error
            reason = hub.missing_config(error) or f"{described(error)}; {elsewhere}"
            raise vgx.HubError(f"dataset huggingface: {named}: {reason}") from error
    files = "|".join(sorted(Path(file["filename"]).parent.name for file in rows.cache_files))
    return LibraryRows(rows), f"{path}|{revision}|{files}", hub.folders()
