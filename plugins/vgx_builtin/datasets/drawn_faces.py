"""Anime-like faces drawn from a seed and an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import vgx
from pydantic import NonNegativeInt, PositiveInt

from vgx_builtin.datasets.face_drawing import draw_face, draw_factors

if TYPE_CHECKING:
    from PIL import Image


class DrawnFaces(vgx.Dataset, type="drawn-faces"):
    """Anime-like faces drawn from a seed and an index."""

    count: PositiveInt = 4096
    """How many pictures."""
    seed: NonNegativeInt = 0
    """Another seed draws other faces."""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """Make the source."""
        return _Faces(self.count, self.seed, image.size)


@dataclass(frozen=True)
class _Faces:
    count: int
    seed: int
    size: int

    @property
    def fingerprint(self) -> str:
        return f"drawn-faces-{self.count}-{self.seed}-{self.size}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        return draw_face(draw_factors(self.seed, index), self.size)
