"""Picture files: whether they changed, and what is done with those that are not plain RGB."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from PIL import Image


NonRgb = Literal["skip", "convert"]


def digest(files: list[Path], root: Path) -> str:
    """Return a sum over names, sizes and times of files: it changes when one of them does."""
    summed = hashlib.sha256()
    for file in files:
        stat = file.stat()
        summed.update(f"{file.relative_to(root)}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return summed.hexdigest()


def keep_rgb(picture: Image.Image, non_rgb: NonRgb) -> Image.Image:
    """Return a picture as RGB.

    With `skip`, one that is not stored as RGB raises `vgx.Dropped`. With `convert`, transparent
    pixels show black, as if the alpha channel were cut off and the colour multiplied by it.
    """
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture.copy()
    if non_rgb == "skip":
        raise vgx.Dropped(_why(picture))
    if picture.has_transparency_data:
        from PIL import Image

        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    if picture.mode.startswith("I;16"):  # Pillow would cut off at 255 what goes up to 65535
        import numpy as np
        from PIL import Image

        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    return picture.convert("RGB")


def _why(picture: Image.Image) -> str:
    if picture.has_transparency_data:
        return "with alpha"
    if picture.mode in ("1", "L", "I", "F", "I;16", "I;16B", "I;16L"):
        return "greyscale"
    return f"in mode {picture.mode}"
