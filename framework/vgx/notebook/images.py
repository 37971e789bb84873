"""Images for people: they show themselves in a notebook, and can be saved.

Letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vgx.errors import RecipeError
from vgx.files import user_path
from vgx.images import (
    as_pil,
    as_pixels,
    enlarge,
    grid,
    require_image_file,
    save_image,
)
from vgx.notebook import html

SIDE = 1280  # pixels of the larger side of what a notebook shows
MOST = 500_000  # bytes of it


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images [N, C, H, W] in [0, 1]. In a notebook they are shown as one grid."""

    tensor: Tensor  # [N, C, H, W]
    columns: int | None = None  # of the grid; by default as many as rows
    captions: tuple[str, ...] = ()  # of the rows
    originals: Tensor | None = None  # [N, C, H, W]  shown above the images, row by row
    about: str = ""  # what they are
    notices: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()  # the class of each image, if they are known

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.tensor.dim() != 4 or not len(self.tensor):
            shape = [*self.tensor.shape]
            raise RecipeError(f"images: a tensor of shape {shape}; give [N, C, H, W], N at least 1")
        if self.originals is not None and self.originals.shape != self.tensor.shape:
            shapes = f"{[*self.originals.shape]} and {[*self.tensor.shape]}"
            raise RecipeError(f"images: originals and images have the shapes {shapes}")

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: int | slice) -> Self:
        """Return one image, or some, as `Images`."""
        if not isinstance(index, slice):
            number = operator.index(index)  # also of NumPy
            if not -len(self) <= number < len(self):
                raise IndexError(f"image {number} of {len(self)}")
            index = slice(number, number + 1 or None)
        if not len(self.tensor[index]):
            raise IndexError(f"there are {len(self)} images")
        above = None if self.originals is None else self.originals[index]
        part = self.tensor[index]
        own = self.classes[index]
        return replace(self, tensor=part, originals=above, columns=None, captions=(), classes=own)

    def numpy(self) -> NDArray[np.uint8]:
        """[N, H, W, C]  The images as bytes from 0 to 255, as matplotlib and Pillow take them."""
        return as_pixels(self.tensor)

    def save(self, path: str | Path) -> Path:
        """Write the grid to a file, and return it: .png, .jpg, .webp or .pdf.

        A data set of a folder leaves grids out, but not a single image.
        Raises `RecipeError` for another ending, and `StorageError` when it cannot be written.
        """
        file = user_path(path)
        rows, columns = self._rows()
        require_image_file(file, len(rows), (rows.shape[-2], rows.shape[-1]), columns)
        save_image(self.grid(), file, marked=len(rows) > 1)
        return file

    def grid(self) -> Tensor:
        """[C, H, W]  The images as one image, each row of originals above its row of images."""
        rows, columns = self._rows()
        return grid(rows, columns, self.captions if self.originals is None else ())

    def _rows(self) -> tuple[Tensor, int | None]:
        """[M, C, H, W]  Return the images of the grid, and how many stand in a row."""
        if self.originals is None:
            return self.tensor, self.columns
        columns = self.columns or min(len(self), 8)
        pairs = [
            # A row that is not full is filled, so that the next one begins at its left.
            torch.cat([part, part.new_zeros(-len(part) % columns, *part.shape[1:])])
            for above, below in zip(
                torch.split(self.originals, columns),
                torch.split(self.tensor, columns),
                strict=True,
            )
            for part in (above.to(below.device), below)
        ]
        return torch.cat(pairs), columns

    @property
    def _title(self) -> str:
        n, channels, height, width = self.tensor.shape
        count = "1 image" if n == 1 else f"{n:,} images"
        size = f"{height} x {width} pixels" + ("" if channels == 3 else f", {channels} channels")
        return f"{count} of {size}" + (f": {self.about}" if self.about else "")

    def __repr__(self) -> str:
        return f"{self._title}\nas one file: .save('grid.png'); as numbers: .tensor, .numpy()"

    def _repr_png_(self) -> bytes | None:
        """Return the grid for a notebook; None for one that is too large as PNG."""
        return self._shown()[0]

    def _repr_jpeg_(self) -> bytes | None:
        return self._shown()[1]

    def _repr_html_(self) -> str | None:
        """Return the grid with its notices; without any, the image alone is enough."""
        if not self.notices:
            return None
        png, jpeg = self._shown()
        shown = html.picture(png or jpeg or b"", "png" if png else "jpeg", self._title)
        return html.block(shown, html.lines([f"NOTICE: {text}" for text in self.notices]))

    def _shown(self) -> tuple[bytes | None, bytes | None]:
        image = enlarged(as_pil(as_pixels(self.grid()[None])[0]))
        png = _file(image, "PNG")
        if len(png) <= MOST:
            return png, None
        return None, _small(image, lambda each: _file(each, "JPEG", quality=92))


def enlarged(image: Image.Image) -> Image.Image:
    """Return an image in the size in which a notebook shows it: small ones enlarged."""
    image = enlarge(image.convert("RGB"))
    image.thumbnail((SIDE, SIDE))
    return image


def as_webp(image: Image.Image) -> bytes:
    """Return an image as WebP of at most `MOST` bytes, for a page that shows it."""
    return _small(image, lambda each: _file(each, "WEBP", quality=85))


def _small(image: Image.Image, encode: Callable[[Image.Image], bytes]) -> bytes:
    """Return an image as a file; it is made smaller until the file has at most `MOST` bytes."""
    while len(data := encode(image)) > MOST:
        image = image.resize([max(1, side * 4 // 5) for side in image.size])
    return data


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
