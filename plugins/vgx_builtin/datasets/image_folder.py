"""Pictures in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveInt

import vgx
from vgx.errors import DataError
from vgx_builtin.pictures import NonRgb, digest, keep_rgb

if TYPE_CHECKING:
    from PIL import Image


class ImageFolder(vgx.Dataset, type="image-folder"):
    """Every picture below a folder, of any size and mode, turned as its EXIF data say.

    Files count as pictures by their ending (jpg, png, webp, tiff, ... : all that Pillow reads), in
    the order of their names.
    """

    path: Path
    """The folder; it is searched through all levels."""
    non_rgb: NonRgb = "convert"
    """What to do with greyscale pictures and those with alpha: leave out, or make RGB."""
    limit: PositiveInt | None = None
    """Take only the first so many files."""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """List the files. Raises `DataError` when there are none."""
        from PIL import Image

        del image
        if not self.path.is_dir():
            raise DataError(f"dataset image-folder: {self.path}: there is no such folder")
        endings = set(Image.registered_extensions())
        found = (file for file in self.path.rglob("*") if file.suffix.lower() in endings)
        files = sorted(file for file in found if file.is_file())[: self.limit]
        if not files:
            raise DataError(f"dataset image-folder: {self.path}: no pictures in it")
        fingerprint = f"image-folder-{self.non_rgb}-{digest(files, self.path)[:32]}"
        return _Files(files, fingerprint, self.non_rgb)


@dataclass(frozen=True)
class _Files:
    files: list[Path]
    fingerprint: str
    non_rgb: NonRgb

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        """Return one picture, upright. Raises `vgx.Dropped` for one that is left out."""
        from PIL import Image, ImageOps

        try:
            with Image.open(self.files[index]) as picture:
                return keep_rgb(ImageOps.exif_transpose(picture), self.non_rgb)
        except vgx.Dropped:
            raise
        except Exception as error:
            raise DataError(f"{self.files[index]}: {error}") from error
