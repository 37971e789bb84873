"""The face of a seed and an index."""

from __future__ import annotations

import hashlib
import random

from vgx_builtin.datasets.face_drawing.factors import HAIR_STYLES, FaceFactors

# Hue, chroma and lightness around which hair colours are drawn; free draws would often be muddy.
_HAIR_COLOURS = (
    (0.74, 0.22, 0.08),  # blue-black
    (0.12, 0.36, 0.24),  # brown
    (0.135, 0.48, 0.48),  # chestnut
    (0.23, 0.55, 0.88),  # blonde
    (0.15, 0.72, 0.66),  # ginger
    (0.07, 0.85, 0.42),  # red
    (0.99, 0.60, 0.76),  # pink
    (0.78, 0.10, 0.88),  # silver
    (0.70, 0.62, 0.58),  # blue
    (0.83, 0.58, 0.62),  # violet
    (0.47, 0.50, 0.76),  # mint
    (0.56, 0.52, 0.64),  # teal
)


def draw_factors(seed: int, index: int) -> FaceFactors:
    """Return the factors of face `index` of a seed: the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    # Of `random`, only `random()` is documented to give the same numbers in every Python version.
    draw = random.Random(int.from_bytes(digest, "big")).random  # noqa: S311

    def kind(*weights: int) -> int:
        left = draw() * sum(weights)
        for number, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return number
        return len(weights) - 1

    def bell() -> float:
        return (draw() + draw() + draw()) * 2 / 3 - 1

    hue, chroma, lightness = _HAIR_COLOURS[kind(*[1] * len(_HAIR_COLOURS))]
    hair_hue = (hue + 0.035 * bell()) % 1
    open_eyes = 1 - 0.45 * draw() ** 2
    nearly_closed = 0.08 * draw()
    hair_style = kind(3, 4, 3, 2, 2, 2)
    # Cat ears would stand in front of the buns.
    cat = 0 if HAIR_STYLES[hair_style] == "buns" else 1
    return FaceFactors(
        hair_hue=hair_hue,
        hair_chroma=_clip(chroma + 0.12 * bell()),
        hair_lightness=_clip(lightness + 0.12 * bell()),
        hair_style=hair_style,
        hair_length=draw(),
        fringe_style=kind(3, 2, 2, 2, 2),
        fringe_length=draw(),
        fringe_sweep=bell(),
        ahoge=max(0.0, 2 * draw() - 1),
        eye_hue=draw(),
        eye_size=draw(),
        eye_openness=nearly_closed if draw() < 0.07 else open_eyes,
        eye_tilt=bell(),
        gaze_x=bell(),
        gaze_y=bell(),
        skin_tone=draw() ** 2,
        smile=_clip(0.35 + 1.1 * bell(), -1),
        mouth_open=max(0.0, 2 * draw() - 1),
        brow_height=bell(),
        brow_tilt=bell(),
        blush=draw(),
        yaw=bell(),
        pitch=bell(),
        roll=bell(),
        face_width=bell(),
        chin=draw(),
        # Never the hue of the hair, so that the head stands out.
        background_hue=(hair_hue + 0.15 + 0.7 * draw()) % 1,
        background_lightness=draw(),
        background_kind=kind(1, 1, 1),
        clothes_hue=draw(),
        clothes_kind=kind(3, 2, 1),
        accessory=kind(5, 2, 2, cat),
    )


def _clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return max(low, min(high, value))
