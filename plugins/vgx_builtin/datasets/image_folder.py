"""Pictures in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

import vgx
from vgx_builtin.labels import LabelledSource, expect_classes
from vgx_builtin.pictures import NonRgb, digest, endings, read

if TYPE_CHECKING:
    from PIL import Image


class ImageFolder(vgx.Dataset, type="image-folder"):
    """Every picture below a folder, of any size and mode, turned as its EXIF data say.

    Files count as pictures by their ending, in the order of their names: avif, bmp, gif, ico, jp2,
    jpg, pcx, png, ppm, qoi, sgi, tga, tiff, webp and their like. Of one with several frames the
    first is taken. Links to folders are not followed.
    """

    path: Path | None = None
    """The folder; it is searched through all levels."""
    non_rgb: NonRgb = "convert"
    """What to do with greyscale pictures and those with alpha: leave out, or make RGB."""
    limit: PositiveInt | None = None
    """Take only the first so many files."""
    label: Literal["folder"] | None = None
    """What a picture's label says: `folder`, which of the folders directly below `path` it lies in,
    0 being the first by name; `null`: there are no labels."""
    fallback: vgx.Dataset | None = None
    """Another dataset, used while there is no `path`: so a recipe runs before it has pictures."""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """List the files. Raises `DataError` when there are none."""
        root, fallback = self.path, self.fallback
        if root is None:
            if fallback is None:
                raise vgx.RecipeError("dataset image-folder: say which: dataset.path=FOLDER")
            return fallback.build(image)
        if not root.is_dir():
            raise vgx.DataError(f"dataset image-folder: {root}: there is no such folder")
        every = sorted(_found(root))
        if not every:
            raise vgx.DataError(f"dataset image-folder: {root}: no pictures in it")
        files = every[: self.limit]
        fingerprint = f"image-folder-{self.non_rgb}-{digest(files, root)[:32]}"
        source = _Files(root, files, fingerprint, self.non_rgb)
        return source if self.label is None else _labelled(source, every, root, image)


def _found(root: Path) -> Iterator[Path]:
    """Give the picture files below a folder. Raises `DataError` for a folder that is closed."""

    def closed(error: OSError) -> None:
        raise vgx.DataError(f"dataset image-folder: {error.filename}: {error.strerror}") from error

    known = endings()
    for folder, _, names in os.walk(root, onerror=closed):
        yield from (Path(folder, name) for name in names if Path(name).suffix.lower() in known)


def _labelled(source: _Files, every: list[Path], root: Path, image: vgx.ImageSpec) -> vgx.Source:
    """Number the folders that have pictures; `limit` does not change the numbers."""
    for file in every:
        if file.parent == root:
            message = f"{file}: lies in no folder below {root}, so it has no label"
            raise vgx.DataError(f"dataset image-folder: label: folder: {message}")
    folders = {file: file.relative_to(root).parts[0] for file in every}
    names = sorted(set(folders.values()))
    expect_classes("dataset image-folder: label: folder", len(names), image)
    number = {name: place for place, name in enumerate(names)}
    labels = [number[folders[file]] for file in source.files]
    told_apart = hashlib.sha256(os.fsencode("/".join(names))).hexdigest()[:16]
    return LabelledSource(source, labels.__getitem__, f"{source.fingerprint}-folders-{told_apart}")


@dataclass(frozen=True)
class _Files:
    root: Path
    files: list[Path]
    fingerprint: str
    non_rgb: NonRgb

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        """Return one picture, upright. Raises `vgx.Dropped` for one that is left out."""
        file = self.files[index]
        return read(file, str(file.relative_to(self.root)), self.non_rgb)
