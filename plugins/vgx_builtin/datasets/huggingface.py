"""Data sets of the Hugging Face hub, or local ones in its layout."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

import vgx
from vgx_builtin import hub
from vgx_builtin.columns import image_column
from vgx_builtin.image_files import NonRgb, digest, has_parquet, read
from vgx_builtin.labels import LabelledSource, column_of_labels

if TYPE_CHECKING:
    from PIL import Image


class HuggingFace(vgx.Dataset, type="huggingface"):
    """A data set of the Hugging Face hub, or a local folder or parquet file in the hub's layout.

    Without a network, only data sets in the hub's cache or in a local folder work.
    """

    path: str
    """`owner/name` on the hub, a local folder, or a local parquet file."""
    split: str = "train"
    """The split; slices work too: `train[:1000]`, `train[90%:]`."""
    column: str | None = None
    """The column with the images; not needed when there is only one."""
    non_rgb: NonRgb = "skip"
    """What to do with greyscale images and those with alpha: leave out, or make RGB."""
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
            rows, fingerprint = _load_local(local, self.split)
        elif self.path.startswith((".", "/", "~")) or self.path.count("/") != 1:
            where = f"no such folder or file: {local.absolute()}"
            raise vgx.DataError(f"dataset huggingface: {self.path}: {where}")
        else:
            try:
                rows, fingerprint = _load_hub(self.path, self.split, self.revision)
            except vgx.HubError as error:
                if fallback is None or not isinstance(error, hub.UnreachableError):
                    raise
                text = f"{error}. Using the fallback instead: {fallback.type}"
                warnings.warn(text, vgx.Notice, stacklevel=2)
                return fallback.build(image)
        all_columns = rows
        rows, column = image_column(rows, self.column, self.path)
        policy = f"{fingerprint}|{self.split}|{column}|{self.non_rgb}|{self.limit}"
        name = f"huggingface-{hashlib.sha256(policy.encode()).hexdigest()[:32]}"
        count = min(len(rows), self.limit or len(rows))
        source = _Rows(rows, column, count, self.non_rgb, name)
        if self.label is None:
            return source
        where = f"dataset huggingface: {self.path}"
        labels = column_of_labels(all_columns.select(range(count)), self.label, where, image)
        return LabelledSource(source, labels.__getitem__, f"{name}-label-{self.label}")


@dataclass(frozen=True)
class _Rows:
    rows: Any  # datasets.Dataset
    column: str
    count: int
    non_rgb: NonRgb
    fingerprint: str

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        """Return one image, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out.
        """
        cell = self.rows[index][self.column]
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise vgx.Dropped("empty")
        name = f"row {index}" + (f" ({cell['path']})" if cell["path"] else "")
        file = io.BytesIO(cell["bytes"]) if cell["bytes"] else Path(cell["path"])
        return read(file, name, self.non_rgb)


def _load_local(path: Path, split: str) -> tuple[Any, str]:
    """Return the rows of a folder or file, and a hash of its files' names, sizes and times."""
    source: dict[str, Any] = {"path": "parquet", "data_files": {"train": str(path)}}
    files, root = [path], path.parent
    if path.is_dir():
        source = {"path": str(path)}
        files, root = sorted(file for file in path.rglob("*") if file.is_file()), path
    fingerprint = digest(files, root)
    try:
        return hub.load(**source, split=split, content=fingerprint), fingerprint
    # The library raises many kinds of error for files that are no data set.
    except Exception as error:
        message = f"dataset huggingface: {path}, split {split}: {_first_line(error)}"
        raise vgx.DataError(message) from error


def _load_hub(path: str, split: str, revision: str | None) -> tuple[Any, str]:
    """Return the rows of a data set of the hub, or of its cache when the hub can't be reached."""
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
            message = f"dataset huggingface: {named}: {_first_line(error)}; {elsewhere}"
            raise vgx.HubError(message) from error
    files = "|".join(sorted(Path(file["filename"]).parent.name for file in rows.cache_files))
    return rows, f"{path}|{revision}|{files}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no reason given'}"
