"""Images in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

import vgx
from vgx_builtin.image_files import (
    NonRgb,
    digest,
    endings,
    files_below,
    has_parquet,
    read,
    tell_of_links,
)
from vgx_builtin.label_files import LabelsField, labels_in_file, reader_in
from vgx_builtin.label_values import numbered
from vgx_builtin.labels import LabelledSource, evenly, folder_labels

if TYPE_CHECKING:
    from PIL import Image


class ImageFolder(vgx.Dataset, type="image-folder"):
    """All images below a folder, of any size and mode, rotated as their EXIF data say.

    Files are chosen by their ending and sorted by their name: avif, bmp, gif, ico, jp2, jpg, pcx,
    png, ppm, qoi, sgi, tga, tiff, webp and similar ones. Of a file with several frames the first is
    taken. A link to a file is followed, and a notice says when it leads out of the folder; links to
    folders are not followed.
    """

    path: Path | None = None
    """The folder; it is searched through all levels."""
    non_rgb: NonRgb = "convert"
    """What to do with greyscale images and those with alpha: leave out, or make RGB."""
    limit: PositiveInt | None = None
    """Take only this many files, the first ones; with labels, as many of each class as there are,
    evenly, the first ones of each."""
    label: Literal["folder"] | None = None
    """The label of an image: `folder`, the folder directly below `path` that it lies in, in natural
    order (2 before 10); `null`: no labels."""
    labels: LabelsField | None = None
    """Labels in a file instead: `labels.csv`, or `{file: labels.csv, picture: COLUMN, label:
    COLUMN}`; `null`: none."""
    fallback: vgx.Dataset | None = None
    """Another dataset, used with a notice when `path` is not set, so that a recipe runs without
    images."""

    @classmethod
    def fields_for(cls, place: str) -> dict[str, Any] | None:
        """Open a folder with images, unless it is a data set in the hub's layout."""
        folder = Path(place)
        if not folder.is_dir() or has_parquet(folder) or not any(_image_files(folder)):
            return None
        return {"path": str(folder)}

    def asks(self) -> str:
        """Return whom the fallback asks, where it is used."""
        return self.fallback.asks() if self.path is None and self.fallback else ""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """List the files. Raises `DataError` when there are none."""
        root, fallback = self.path, self.fallback
        if root is None:
            if fallback is None:
                raise vgx.RecipeError(
                    "dataset image-folder: no folder is given; set dataset.path=FOLDER"
                )
            text = f"dataset image-folder: no folder is given; using the fallback: {fallback.type}"
            warnings.warn(f"{text} (your own images: --data FOLDER)", vgx.Notice, stacklevel=2)
            return fallback.build(image)
        if not root.is_dir():
            where = f"{root}: there is no such folder: {root.absolute()}"
            raise vgx.DataError(f"dataset image-folder: {where}")
        all_files = sorted(_image_files(root))
        if not all_files:
            raise vgx.DataError(f"dataset image-folder: {root}: no images in it")
        if self.label and self.labels:
            raise vgx.RecipeError("dataset image-folder: set label or labels, and not both")
        labelled = self.label is not None or self.labels is not None
        files = all_files if labelled else all_files[: self.limit]
        tell_of_links(files, root, "dataset image-folder")
        fingerprint = f"image-folder-{self.non_rgb}-{digest(files, root)[:32]}"
        source = _Files(root, files, fingerprint, self.non_rgb)
        return _labelled(source, self, root, image) if labelled else source


def _image_files(root: Path) -> Iterator[Path]:
    """Yield the image files below a folder. Raises `DataError` for an unreadable folder."""
    known = endings()
    for file in files_below(root):
        if file.suffix.lower() in known:
            yield file


def _labelled(source: _Files, part: ImageFolder, root: Path, image: vgx.ImageSpec) -> vgx.Source:
    """Return the images with the labels of their folders, or of a file."""
    names = [file.relative_to(root).as_posix() for file in source.files]
    where = "dataset image-folder"
    if part.labels is None:
        labels, kind = folder_labels(names, f"{where}: label: folder", image), "folders"
    else:
        values = labels_in_file(part.labels, names, reader_in(root, where), where)
        labels = numbered(values, f"{where}: labels: {part.labels.file}", image)
        kind = "labels"
    fingerprint = f"{source.fingerprint}-{kind}-{labels.fingerprint()}"
    if part.limit:
        fingerprint += f"-limit-{part.limit}"
    return LabelledSource(source, evenly(labels.numbers, part.limit), labels, fingerprint)


@dataclass(frozen=True)
class _Files:
    root: Path
    files: list[Path]
    fingerprint: str
    non_rgb: NonRgb

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        """Return one image, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out.
        """
        file = self.files[index]
        return read(file, str(file.relative_to(self.root)), self.non_rgb)
