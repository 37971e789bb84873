"""Images in a folder or an archive."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

import vgx
from vgx_builtin.files.formats import missing_readers
from vgx_builtin.files.image_decoding import decode
from vgx_builtin.files.image_files import NonRgb, whole
from vgx_builtin.files.image_places import (
    Place,
    archive_kind,
    existing,
    left_out_text,
    open_place,
    tell_of_unread,
)
from vgx_builtin.files.links import tell_of_links
from vgx_builtin.files.walk import has_parquet, images_below
from vgx_builtin.labels.beside import LabelsField, labels_in_file, reader_in
from vgx_builtin.labels.class_folders import tell_of_splits
from vgx_builtin.labels.sources import LabelledSource, evenly, folder_labels
from vgx_builtin.labels.values import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

WHERE = "dataset image-folder"


class ImageFolder(vgx.Dataset, type="image-folder"):
    """All images in a folder, a zip file or a tar file, of any size and mode.

    Files are images if they end or begin like one; see the list below. They are sorted by their
    names, rotated as their EXIF data say, and of several frames the first is taken. Links are
    followed, and a notice says when they lead out of the folder. What is left out is counted by
    reason.
    """

    path: Path | None = None
    """The folder, searched through all levels, or the archive, or a folder in it:
    `pics.zip/train`."""
    non_rgb: NonRgb = "convert"
    """What to do with greyscale images and those with alpha: leave out (`skip`), or use
    (`convert`). Grey is never left out where `image.channels` is 1, nor alpha where it is 4."""
    limit: PositiveInt | None = None
    """Take only this many files, the first ones; with labels, as many of each class as there are,
    evenly, the first ones of each."""
    label: Literal["folder"] | None = None
    """The label of an image: `folder`, the folder that it lies in, in natural order (2 before 10);
    `null`: no labels."""
    labels: LabelsField | None = None
    """Labels in a file instead: `labels.csv`, or `{file: labels.csv, picture: COLUMN, label:
    COLUMN}`; `null`: none."""
    fallback: vgx.Dataset | None = None
    """Another dataset, used with a notice when `path` is not set, so that a recipe runs without
    images."""

    @classmethod
    def fields_for(cls, place: str) -> dict[str, Any] | None:
        """Open an archive, or a folder that is no data set in the hub's layout.

        Raises `DataError` for a folder without images; it says what is there.
        """
        path = Path(place)
        if path.is_dir():
            if has_parquet(path):
                return None
            found = images_below(path)
            if not found.names:
                raise vgx.DataError(f"no images in it{left_out_text(found, path)}")
        elif not existing(path).is_file() or archive_kind(existing(path)) is None:
            return None
        return {"path": str(path)}

    def asks(self) -> str:
        """Return whom the fallback asks, where it is used."""
        return self.fallback.asks() if self.path is None and self.fallback else ""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """List the files. Raises `DataError` when there are none."""
        root, fallback = self.path, self.fallback
        if root is None:
            if fallback is None:
                raise vgx.RecipeError(f"{WHERE}: no folder is given; set dataset.path=FOLDER")
            text = f"{WHERE}: no folder is given; using the fallback: {fallback.type}"
            warnings.warn(f"{text} (your own images: --data FOLDER)", vgx.Notice, stacklevel=2)
            return fallback.build(image)
        if self.label and self.labels:
            raise vgx.RecipeError(f"{WHERE}: set label or labels, and not both")
        try:
            place = open_place(root)
        except vgx.DataError as error:
            raise vgx.DataError(f"{WHERE}: {error}") from error
        found = place.found
        if not found.names:
            raise vgx.DataError(f"{WHERE}: {root}: no images in it{left_out_text(found, root)}")
        tell_of_unread(found, root, WHERE)
        tell_of_splits(found.names, root, WHERE)
        labelled = self.label is not None or self.labels is not None
        names = found.names if labelled else found.names[: self.limit]
        if root.is_dir():
            tell_of_links([root / name for name in names], root, WHERE)
        listed = hashlib.sha256(os.fsencode("\n".join(names)))
        listed.update(f"{place.fingerprint(names)}{missing_readers()}".encode())
        fingerprint = f"image-folder-{self.non_rgb}-{listed.hexdigest()[:32]}"
        reader = place.reader(names)
        source = _Files(names, reader, fingerprint, self.non_rgb, image.channels, found.left_out)
        return _labelled(source, self, place, image) if labelled else source


def _labelled(source: _Files, part: ImageFolder, place: Place, image: vgx.ImageSpec) -> vgx.Source:
    """Return the images with the labels of their folders, or of a file."""
    if part.labels is None:
        labels, kind = folder_labels(source.names, f"{WHERE}: label: folder", image), "folders"
    else:
        values = labels_in_file(part.labels, source.names, reader_in(place, WHERE), WHERE)
        labels = numbered(values, f"{WHERE}: labels: {part.labels.file}", image)
        kind = "labels"
    fingerprint = f"{source.fingerprint}-{kind}-{labels.fingerprint()}"
    if part.limit:
        fingerprint += f"-limit-{part.limit}"
    return LabelledSource(source, evenly(labels.numbers, part.limit), labels, fingerprint)


@dataclass(frozen=True)
class _Files:
    names: Sequence[str]
    reader: Callable[[str], IO[bytes]]
    fingerprint: str
    non_rgb: NonRgb
    channels: int  # of the recipe
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image as it is, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out.
        """
        name = self.names[index]
        with self.reader(name) as file:
            return decode(file, name, self.non_rgb, self.channels)

    def encoded(self, index: int) -> bytes:
        """Return the file of an image as it is."""
        name = self.names[index]
        with self.reader(name) as file:
            return whole(file, name)
