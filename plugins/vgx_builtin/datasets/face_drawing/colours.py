"""Colours: OKLCH to RGB, and the palette of one face."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vgx_builtin.datasets.face_drawing.factors import FaceFactors

Colour = tuple[int, int, int]
WHITE: Colour = (255, 254, 252)


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert to sRGB bytes (Ottosson 2020), with less chroma where a screen can't show it."""
    angle = 2 * math.pi * hue
    red_green, blue_yellow = math.cos(angle), math.sin(angle)
    while True:
        a, b = chroma * red_green, chroma * blue_yellow
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        )
        if chroma < 0.005 or (min(linear) >= -0.003 and max(linear) <= 1.003):
            return _byte(linear[0]), _byte(linear[1]), _byte(linear[2])
        chroma *= 0.9


def _byte(linear: float) -> int:
    value = max(0.0, min(1.0, linear))
    value = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return round(255 * value)


def mix(one: Colour, other: Colour, part: float) -> Colour:
    """Return a mixture: `one` for `part` 0, `other` for `part` 1."""
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Palette:
    """The colours of one face."""

    skin: Colour
    skin_shade: Colour
    skin_line: Colour
    blush: Colour
    mouth: Colour
    tongue: Colour
    hair: Colour
    hair_tip: Colour
    hair_shade: Colour
    hair_line: Colour
    hair_shine: Colour
    lash: Colour
    brow: Colour
    white_shade: Colour
    iris_dark: Colour
    iris: Colour
    iris_light: Colour
    pupil: Colour
    cloth: Colour
    cloth_shade: Colour
    accent: Colour
    accent_line: Colour
    background: Colour
    background_light: Colour


def _bright(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert as `_oklch` does, but make yellows lighter: a dark yellow looks olive."""
    yellow = max(0.0, math.cos(2 * math.pi * (hue - 0.28)))
    return _oklch(lightness + (0.93 - lightness) * 0.55 * yellow, chroma, hue)


def palette(f: FaceFactors) -> Palette:
    """Return the colours of a face."""
    skin_l, skin_c = 0.94 - 0.25 * f.skin_tone, 0.036 + 0.05 * f.skin_tone
    hair_l, hair_c = 0.30 + 0.58 * f.hair_lightness, 0.01 + 0.18 * f.hair_chroma
    ground_l = 0.80 + 0.14 * f.background_lightness
    iris_dark = _oklch(0.32, 0.10, f.eye_hue - 0.02)
    # As painters do, the tips of hair shift to the next hue, and shadows to the one before.
    return Palette(
        skin=_oklch(skin_l, skin_c, 0.155),
        skin_shade=_oklch(skin_l - 0.085, skin_c + 0.032, 0.11),
        skin_line=_oklch(skin_l - 0.36, skin_c + 0.05, 0.09),
        blush=_oklch(skin_l - 0.14, 0.14, 0.04),
        mouth=_oklch(0.45 - 0.06 * f.skin_tone, 0.13, 0.06),
        tongue=_oklch(0.70, 0.14, 0.05),
        hair=_oklch(hair_l, hair_c, f.hair_hue),
        hair_tip=_oklch(hair_l + 0.03, hair_c * 1.1, f.hair_hue + 0.025),
        hair_shade=_oklch(hair_l * 0.84 - 0.02, hair_c * 0.95 + 0.01, f.hair_hue - 0.025),
        hair_line=_oklch(hair_l * 0.55, hair_c * 0.7 + 0.015, f.hair_hue - 0.03),
        hair_shine=_oklch(min(0.97, hair_l * 0.75 + 0.30), hair_c * 0.6, f.hair_hue + 0.01),
        lash=_oklch(0.25, 0.03 + hair_c * 0.2, f.hair_hue),
        brow=_oklch(hair_l * 0.58, hair_c * 0.7 + 0.01, f.hair_hue),
        white_shade=(206, 208, 226),
        iris_dark=iris_dark,
        iris=_bright(0.58, 0.16, f.eye_hue),
        iris_light=_bright(0.86, 0.13, f.eye_hue + 0.03),
        pupil=mix(iris_dark, (10, 5, 25), 0.6),
        cloth=_bright(0.65, 0.12, f.clothes_hue),
        cloth_shade=_bright(0.50, 0.11, f.clothes_hue - 0.02),
        accent=_bright(0.66, 0.18, f.clothes_hue + 0.45),
        accent_line=_oklch(0.48, 0.13, f.clothes_hue + 0.43),
        background=_bright(ground_l, 0.07, f.background_hue),
        background_light=_bright(min(0.97, ground_l + 0.07), 0.05, f.background_hue + 0.09),
    )
