"""Images in a folder."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

import vgx
from vgx_builtin.image_decoding import read
from vgx_builtin.image_files import (
    NonRgb,
    digest,
    endings,
    files_below,
    has_parquet,
    tell_of_links,
)
from vgx_builtin.labels import LabelledSource, expect_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray
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
    """What to do with greyscale images and those with alpha: leave out (`skip`), or use
    (`convert`). Grey is never left out where `image.channels` is 1, nor alpha where it is 4."""
    limit: PositiveInt | None = None
    """Take only this many files, the first ones."""
    label: Literal["folder"] | None = None
    """The label of an image: `folder`, the number of the folder directly below `path` that it lies
    in, 0 for the first by name; `null`: no labels."""
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
        files = all_files[: self.limit]
        tell_of_links(files, root, "dataset image-folder")
        fingerprint = f"image-folder-{self.non_rgb}-{digest(files, root)[:32]}"
        source = _Files(root, files, fingerprint, self.non_rgb, image.channels)
        return source if self.label is None else _labelled(source, all_files, root, image)


def _image_files(root: Path) -> Iterator[Path]:
    """Yield the image files below a folder. Raises `DataError` for an unreadable folder."""
    known = endings()
    for file in files_below(root):
        if file.suffix.lower() in known:
            yield file


def _labelled(
    source: _Files, all_files: list[Path], root: Path, image: vgx.ImageSpec
) -> vgx.Source:
    """Label images by folder; only folders with images count, and `limit` changes no label."""
    for file in all_files:
        if file.parent == root:
            message = f"{file}: lies in no folder below {root}, so it has no label"
            raise vgx.DataError(f"dataset image-folder: label: folder: {message}")
    folders = {file: file.relative_to(root).parts[0] for file in all_files}
    names = sorted(set(folders.values()))
    expect_classes("dataset image-folder: label: folder", len(names), image, names)
    number = {name: index for index, name in enumerate(names)}
    labels = [number[folders[file]] for file in source.files]
    names_hash = hashlib.sha256(os.fsencode("/".join(names))).hexdigest()[:16]
    return LabelledSource(source, labels.__getitem__, f"{source.fingerprint}-folders-{names_hash}")


@dataclass(frozen=True)
class _Files:
    root: Path
    files: list[Path]
    fingerprint: str
    non_rgb: NonRgb
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image as it is, rotated as its EXIF data say.

        Raises `vgx.Dropped` for an image that is left out.
        """
        file = self.files[index]
        return read(file, str(file.relative_to(self.root)), self.non_rgb, self.channels)
