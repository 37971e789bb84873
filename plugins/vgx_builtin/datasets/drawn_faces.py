"""The dataset of anime-like faces that is drawn instead of downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt

import vgx
from vgx_builtin.datasets.face_drawing import DRAWING_VERSION, draw_face, draw_factors
from vgx_builtin.datasets.face_drawing.factors import ACCESSORIES, HAIR_STYLES
from vgx_builtin.labels.values import expect_classes

if TYPE_CHECKING:
    from PIL import Image


NAMES: dict[str, tuple[str, ...]] = {"hair_style": HAIR_STYLES, "accessory": ACCESSORIES}


class DrawnFaces(vgx.Dataset, type="drawn-faces"):
    """Anime-like faces drawn from a seed and an index: no files, no download, no licence question.

    Each face is drawn from some thirty known numbers (hair, eyes, mouth, pose, colours, ...), so
    what a model has learned can be compared with them: `factors(i)` of the source returns them. The
    images are drawn at the recipe's own size and are the same on every machine; the first ones stay
    the same when `count` changes. Where this size is not square, the face is in the middle, and
    nothing is stretched.
    """

    count: PositiveInt = 4096
    """Number of images."""
    seed: NonNegativeInt = 0
    """Chooses the faces: another seed gives other faces of the same kind."""
    label: Literal["hair_style", "accessory"] | None = None
    """The label of a face: `hair_style`, 0 bob, 1 long, 2 twin tails, 3 side tail, 4 short, 5 buns;
    `accessory`, 0 none, 1 ribbon, 2 hairclip, 3 cat ears; `null`: no labels."""

    def build(self, image: vgx.ImageSpec) -> vgx.Source:
        """Return the faces; each is drawn when it is read."""
        faces = DrawnFacesSource(self.seed, self.count, image.height, image.width)
        if self.label is None:
            return faces
        expect_classes(f"dataset drawn-faces: label: {self.label}", NAMES[self.label], image)
        return LabelledFaces(faces, self.label)


@dataclass(frozen=True)
class DrawnFacesSource:
    """Faces by number, RGB and `height` x `width` pixels."""

    seed: int
    count: int
    height: int
    width: int

    @property
    def fingerprint(self) -> str:
        """A text that changes when the images do."""
        square = self.height == self.width
        size = self.height if square else f"{self.height}x{self.width}"
        return (
            f"drawn-faces version={DRAWING_VERSION} seed={self.seed} count={self.count} size={size}"
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        """Draw face `index`."""
        return draw_face(draw_factors(self.seed, self._checked(index)), self.height, self.width)

    def factors(self, index: int) -> dict[str, float]:
        """Return the factors of face `index` by name; `face_drawing.RANGES` has their ranges."""
        return draw_factors(self.seed, self._checked(index)).by_name()

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(f"face {index} of {self.count}")
        return index


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with one of their factors as label; `factors` still returns all of them."""

    faces: DrawnFacesSource
    factor: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return NAMES[self.factor]

    @property
    def fingerprint(self) -> str:
        """A text that changes when the images or the labels do."""
        return f"{self.faces.fingerprint} label={self.factor}"

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Image.Image:
        """Draw face `index`."""
        return self.faces[index]

    def factors(self, index: int) -> dict[str, float]:
        """Return the factors of face `index` by name."""
        return self.faces.factors(index)

    def label(self, index: int) -> int:
        """Return the label of face `index`."""
        return int(self.faces.factors(index)[self.factor])
