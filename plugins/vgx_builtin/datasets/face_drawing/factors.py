"""What makes one face: its factors, by name and with their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args, get_type_hints

Unit = Annotated[float, (0, 1)]
Signed = Annotated[float, (-1, 1)]

HAIR_STYLES = ("bob", "long", "twin tails", "side tail", "short", "buns")
FRINGE_STYLES = ("spiky", "straight", "parted", "swept", "middle lock")
BACKGROUND_KINDS = ("plain", "gradient", "disc")
CLOTHES_KINDS = ("sailor", "round neck", "turtleneck")
ACCESSORIES = ("none", "ribbon", "hairclip", "cat ears")


@dataclass(frozen=True)
class FaceFactors:
    """The factors of one face: numbers in [0, 1] or [-1, 1], and small ints for kinds.

    `RANGES` gives the bounds by name. Hues are turns of the OKLCH colour circle: 0.08 is red, 0.24
    yellow, 0.40 green, 0.55 cyan, 0.73 blue, 0.85 violet, 0.97 pink. Left and right are the
    viewer's.
    """

    hair_hue: Unit
    hair_chroma: Unit
    """0 is grey, 1 vivid."""
    hair_lightness: Unit
    """0 is almost black, 1 almost white."""
    hair_style: Annotated[int, (0, len(HAIR_STYLES) - 1)]
    """Index into `HAIR_STYLES`."""
    hair_length: Unit
    fringe_style: Annotated[int, (0, len(FRINGE_STYLES) - 1)]
    """Index into `FRINGE_STYLES`."""
    fringe_length: Unit
    fringe_sweep: Signed
    """-1 combs the fringe to the left, 1 to the right."""
    ahoge: Unit
    """Size of the stray lock on top; below 0.2 there is none."""
    eye_hue: Unit
    eye_size: Unit
    eye_openness: Unit
    """0 is closed: no iris can be seen."""
    eye_tilt: Signed
    """-1 lets the outer corners droop, 1 lifts them."""
    gaze_x: Signed
    gaze_y: Signed
    """1 looks down."""
    skin_tone: Unit
    """0 is fair, 1 dark."""
    smile: Signed
    """-1 is a frown, 1 a smile."""
    mouth_open: Unit
    brow_height: Signed
    """1 is raised."""
    brow_tilt: Signed
    """-1 looks worried, 1 stern."""
    blush: Unit
    yaw: Signed
    """1 turns the head to the right."""
    pitch: Signed
    """1 bows the head."""
    roll: Signed
    """1 tilts the head to the right by 10 degrees."""
    face_width: Signed
    chin: Unit
    """0 is pointed, 1 round."""
    background_hue: Unit
    background_lightness: Unit
    background_kind: Annotated[int, (0, len(BACKGROUND_KINDS) - 1)]
    """Index into `BACKGROUND_KINDS`."""
    clothes_hue: Unit
    clothes_kind: Annotated[int, (0, len(CLOTHES_KINDS) - 1)]
    """Index into `CLOTHES_KINDS`."""
    accessory: Annotated[int, (0, len(ACCESSORIES) - 1)]
    """Index into `ACCESSORIES`."""

    def by_name(self) -> dict[str, float]:
        """Return the factors by name: an int for each kind, a float for all others."""
        # A number that was clipped to a bound may be an int without being a kind.
        return {name: type_(getattr(self, name)) for name, type_ in TYPES.items()}


TYPES: dict[str, type[float]] = get_type_hints(FaceFactors)
"""The type of each factor: `float`, or `int` for a kind."""


RANGES: dict[str, tuple[float, float]] = {
    name: get_args(hint)[1]
    for name, hint in get_type_hints(FaceFactors, include_extras=True).items()
}
"""The least and the greatest value of each factor, both included."""
