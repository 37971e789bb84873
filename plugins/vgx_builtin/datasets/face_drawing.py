"""Draw an anime-like face from a few dozen numbers, the same pixels on every machine.

Places are in frame units: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom). Colours
are OKLCH, where equal steps look equally large and hues keep their lightness.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, get_args, get_type_hints

from PIL import Image, ImageChops, ImageDraw

DRAWING_VERSION = 1
"""Changes whenever the same seed and index give another picture."""

SUPERSAMPLING = 4

Unit = Annotated[float, (0, 1)]
Signed = Annotated[float, (-1, 1)]

Point = tuple[float, float]
Pixel = tuple[int, int]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

_WHITE: Colour = (255, 254, 252)
_HEAD = 0.96  # leaves room for what stands on top of it
_NECK = 0.55  # y around which the head tilts

HAIR_STYLES = ("bob", "long", "twin tails", "side tail", "short", "buns")
FRINGE_STYLES = ("spiky", "straight", "parted", "swept", "middle lock")
BACKGROUND_KINDS = ("plain", "gradient", "disc")
CLOTHES_KINDS = ("sailor", "round neck", "turtleneck")
ACCESSORIES = ("none", "ribbon", "hairclip", "cat ears")


@dataclass(frozen=True)
class FaceFactors:
    """Everything that makes one face: numbers in [0, 1] or [-1, 1], and small ints for kinds.

    `RANGES` has the bounds by name. Hues are turns of the OKLCH colour circle: 0.08 is red, 0.24
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
    """1 tilts the head to the right by `_ROLL_DEGREES`."""
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
        """Return the factors by name: a float each, and an int for kinds."""
        # As the fields say: what the drawing clips to a bound may be an int without being a kind.
        return {name: as_said(getattr(self, name)) for name, as_said in TYPES.items()}


TYPES: dict[str, type[float]] = get_type_hints(FaceFactors)
"""`float` or `int`, the type of each factor."""
RANGES: dict[str, tuple[float, float]] = {
    name: get_args(hint)[1]
    for name, hint in get_type_hints(FaceFactors, include_extras=True).items()
}
"""Least and greatest value of each factor, both included."""


# --- choosing a face -------------------------------------------------------------------------

# Hue, chroma and lightness around which hair colours are drawn: free draws would be half mud.
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
_ROLL_DEGREES = 10.0


def draw_factors(seed: int, index: int) -> FaceFactors:
    """Choose the face of a seed and an index, the same one everywhere."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    # Only `random()` is promised to give the same numbers in every version of Python.
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
        # Never the hair's own hue: the head should stand out.
        background_hue=(hair_hue + 0.15 + 0.7 * draw()) % 1,
        background_lightness=draw(),
        background_kind=kind(1, 1, 1),
        clothes_hue=draw(),
        clothes_kind=kind(3, 2, 1),
        accessory=kind(5, 2, 2, cat),
    )


def _clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return max(low, min(high, value))


# --- colours ---------------------------------------------------------------------------------


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert to RGB bytes (Ottosson 2020), paling what a screen can't show."""
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
    value = _clip(linear)
    value = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return round(255 * value)


def _mix(one: Colour, other: Colour, part: float) -> Colour:
    """Return `one` with `part` of `other` in it."""
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class _Palette:
    """The colours of one picture."""

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
    """Convert a colour that has to look clean: a dark yellow would be olive."""
    yellow = max(0.0, math.cos(2 * math.pi * (hue - 0.28)))
    return _oklch(lightness + (0.93 - lightness) * 0.55 * yellow, chroma, hue)


def _palette(f: FaceFactors) -> _Palette:
    skin_l, skin_c = 0.94 - 0.25 * f.skin_tone, 0.036 + 0.05 * f.skin_tone
    hair_l, hair_c = 0.30 + 0.58 * f.hair_lightness, 0.01 + 0.18 * f.hair_chroma
    ground_l = 0.80 + 0.14 * f.background_lightness
    iris_dark = _oklch(0.32, 0.10, f.eye_hue - 0.02)
    # Tips drift towards the next hue and shadows back, as a painter would have it.
    return _Palette(
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
        pupil=_mix(iris_dark, (10, 5, 25), 0.6),
        cloth=_bright(0.65, 0.12, f.clothes_hue),
        cloth_shade=_bright(0.50, 0.11, f.clothes_hue - 0.02),
        accent=_bright(0.66, 0.18, f.clothes_hue + 0.45),
        accent_line=_oklch(0.48, 0.13, f.clothes_hue + 0.43),
        background=_bright(ground_l, 0.07, f.background_hue),
        background_light=_bright(min(0.97, ground_l + 0.07), 0.05, f.background_hue + 0.09),
    )


# --- curves ----------------------------------------------------------------------------------


@lru_cache
def _spline_weights(detail: int) -> list[tuple[float, float, float, float]]:
    """Catmull-Rom weights of four neighbours at `detail` places between the middle two."""
    weights = []
    for step in range(detail):
        t = step / detail
        weights.append(
            (
                (-t + 2 * t * t - t**3) / 2,
                (2 - 5 * t * t + 3 * t**3) / 2,
                (t + 4 * t * t - 3 * t**3) / 2,
                (t**3 - t * t) / 2,
            )
        )
    return weights


def _through(points: list[Point], detail: int = 4) -> list[Point]:
    """Return a smooth open curve through the points."""
    ends = [points[0], *points, points[-1]]
    curve = []
    for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip(
        ends, ends[1:], ends[2:], ends[3:], strict=False
    ):
        for p, q, r, s in _spline_weights(detail):
            curve.append((p * ax + q * bx + r * cx + s * dx, p * ay + q * by + r * cy + s * dy))
    curve.append(points[-1])
    return curve


def _around(points: list[Point], detail: int = 4) -> list[Point]:
    """Return a smooth closed curve through the points."""
    turns = len(points) * detail
    curve = _through([points[-1], *points, points[0], points[1]], detail)
    return curve[detail : detail + turns]


def _bend(start: Point, pull: Point, end: Point, detail: int = 5) -> list[Point]:
    """Return a curve from start to end that leans towards `pull`; the end is left out."""
    curve = []
    for step in range(detail):
        t = step / detail
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        curve.append(
            (
                a * start[0] + b * pull[0] + c * end[0],
                a * start[1] + b * pull[1] + c * end[1],
            )
        )
    return curve


@lru_cache
def _circle(corners: int) -> list[Point]:
    # Rounded, because the last bit of a sine is not the same on every machine.
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(round(math.cos(turn), 9), round(math.sin(turn), 9)) for turn in turns]


def _ellipse(x: float, y: float, width: float, height: float, corners: int = 18) -> list[Point]:
    """Return an ellipse from its centre, half width and half height."""
    return [(x + width * cx, y + height * cy) for cx, cy in _circle(corners)]


def _both(points: list[Point]) -> list[Point]:
    """Close a right half, listed from top to bottom, with its mirror image."""
    return points + [(-x, y) for x, y in reversed(points) if x != 0]


def _mirror(points: list[Point], side: int) -> list[Point]:
    """Return the points for a side: 1 is right, as they are, -1 is left."""
    return [(side * x, y) for x, y in points]


def _stroke(line: list[Point], start: float, middle: float, end: float) -> list[Point]:
    """Return the outline of a brush stroke along a line; the numbers are its widths."""
    last = len(line) - 1
    left, right = [], []
    for number, (x, y) in enumerate(line):
        before, after = line[max(0, number - 1)], line[min(last, number + 1)]
        along_x, along_y = after[0] - before[0], after[1] - before[1]
        length = math.sqrt(along_x * along_x + along_y * along_y) or 1.0
        t = 2 * number / last
        width = start + (middle - start) * t if t < 1 else middle + (end - middle) * (t - 1)
        across_x, across_y = -along_y / length * width / 2, along_x / length * width / 2
        left.append((x + across_x, y + across_y))
        right.append((x - across_x, y - across_y))
    return left + right[::-1]


# --- the sheet of paper ----------------------------------------------------------------------


class _Sheet:
    """A large picture to draw on, and the pose that carries the head's points onto it."""

    def __init__(self, f: FaceFactors, size: int, colour: Colour) -> None:
        self.side = size * SUPERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side), colour)
        self.pencil = ImageDraw.Draw(self.image)
        self.yaw, self.pitch = 0.17 * f.yaw, 0.09 * f.pitch
        angle = math.radians(_ROLL_DEGREES * f.roll)
        # Rounded, because the last bit of a sine is not the same on every machine.
        self.cos, self.sin = round(math.cos(angle), 9), round(math.sin(angle), 9)

    def flat(self, points: list[Point]) -> list[Pixel]:
        """Carry frame units to pixels, as whole numbers, so that no rounding error can show."""
        half = self.side / 2
        return [(round((x + 1) * half), round((y + 1) * half)) for x, y in points]

    def posed(self, points: list[Point], depth: float = 1.0) -> list[Pixel]:
        """Carry the head's points to pixels; `depth` 1 is the face, below 0 is behind the axis.

        Turning moves what is in the middle of the head most and its rim not at all, which also
        makes the far eye narrower than the near one.
        """
        half = self.side / 2
        yaw, pitch = self.yaw * depth, self.pitch * depth
        cos, sin = _HEAD * half * self.cos, _HEAD * half * self.sin
        carried = []
        for x, y in points:
            bulge = 1 - 1.5 * x * x
            px = x + yaw * bulge if bulge > 0 else x
            bulge = 1 - y * y
            py = (y + pitch * bulge if bulge > 0 else y) - _NECK
            carried.append(
                (round(px * cos - py * sin + half), round(px * sin + py * cos + (1 + _NECK) * half))
            )
        return carried

    def fill(self, pixels: list[Pixel], colour: Colour) -> None:
        """Fill a shape."""
        self.pencil.polygon(pixels, colour)

    def line(self, pixels: list[Pixel], colour: Colour, width: float = 0.016) -> None:
        """Draw an open line, its width in frame units."""
        self.pencil.line(pixels, colour, max(1, round(width * self.side / 2)))

    def outline(self, pixels: list[Pixel], colour: Colour, width: float = 0.016) -> None:
        """Draw along a closed shape."""
        self.line([*pixels, pixels[0]], colour, width)

    def mask(self, *shapes: list[Pixel]) -> Image.Image:
        """Return a picture that is 255 inside the shapes and 0 outside."""
        mask = Image.new("L", self.image.size)
        pencil = ImageDraw.Draw(mask)
        for pixels in shapes:
            pencil.polygon(pixels, 255)
        return mask

    def paint(self, paint: Image.Image | Colour, mask: Image.Image) -> None:
        """Put a colour, or a picture as large as the sheet, where the mask is 255."""
        box = mask.getbbox()
        if box:
            part = paint.crop(box) if isinstance(paint, Image.Image) else paint
            self.image.paste(part, box, mask.crop(box))

    def fade(self, colours: list[Colour], box: Box, mask: Image.Image) -> None:
        """Paint a vertical gradient over a box, where the mask is 255."""
        left, top, right, bottom = box
        stops = Image.new("RGB", (1, len(colours)))
        stops.putdata(colours)
        # From the middle of the first pixel to the middle of the last: straight between them.
        between = (0, 0.5, 1, len(colours) - 0.5)
        column = stops.resize((1, bottom - top), Image.Resampling.BILINEAR, between)
        paint = column.resize((right - left, bottom - top), Image.Resampling.NEAREST)
        self.image.paste(paint, (left, top), mask.crop(box))

    @property
    def frame(self) -> Box:
        """All of the sheet."""
        return 0, 0, self.side, self.side


def _bounds(pixels: list[Pixel]) -> Box:
    across, down = [x for x, _ in pixels], [y for _, y in pixels]
    return min(across), min(down), max(across) + 1, max(down) + 1


# --- drawing ---------------------------------------------------------------------------------


def draw_face(factors: FaceFactors, size: int) -> Image.Image:
    """Draw a face: an RGB picture of `size` x `size` pixels."""
    colours = _palette(factors)
    sheet = _Sheet(factors, size, colours.background)
    fringe = sheet.posed(_fringe(factors))
    _draw_background(sheet, factors, colours)
    _draw_back_hair(sheet, factors, colours)
    _draw_body(sheet, factors, colours)
    _draw_skin(sheet, factors, colours, fringe)
    _draw_mouth(sheet, factors, colours)
    _draw_eyes(sheet, factors, colours)
    _draw_side_locks(sheet, factors, colours)
    _draw_fringe(sheet, factors, colours, fringe)
    _draw_brows(sheet, factors, colours)
    _draw_accessory(sheet, factors, colours)
    return sheet.image.reduce(SUPERSAMPLING)


def _draw_background(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    kind = BACKGROUND_KINDS[f.background_kind]
    if kind == "gradient":
        everywhere = Image.new("L", sheet.image.size, 255)
        sheet.fade([c.background, c.background_light], sheet.frame, everywhere)
    elif kind == "disc":
        sheet.fill(sheet.flat(_ellipse(0, -0.05, 0.93, 0.93, 48)), c.background_light)


def _draw_back_hair(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    style = HAIR_STYLES[f.hair_style]
    long = f.hair_length
    lit: list[list[Pixel]] = []
    if style in ("twin tails", "side tail"):
        sides = (-1, 1) if style == "twin tails" else (1 if f.fringe_sweep < 0 else -1,)
        end = (0.84, 0.55 + 0.55 * long)
        tail = _through([(0.55, -0.52), (0.80, -0.66), (0.98, -0.36), (0.99, 0.15), end])
        tail += _through([end, (0.74, 0.30), (0.68, -0.05), (0.58, -0.30)])
        lit = [sheet.posed(_mirror(tail, side), -0.2) for side in sides]
    elif style == "buns":
        buns = [_ellipse(side * 0.57, -0.70, 0.25, 0.25, 24) for side in (-1, 1)]
        lit = [sheet.posed(bun, -0.2) for bun in buns]
    end_y, wide = {
        "bob": (0.52 + 0.22 * long, 0.84),
        "long": (1.35, 0.80 + 0.10 * long),
        "buns": (0.45 + 0.2 * long, 0.76),
        "short": (0.38, 0.74),
    }.get(style, (0.42, 0.74))
    back = [(0, -0.86), (0.46, -0.74), (0.73, -0.35), (wide, 0.15), (wide - 0.05, end_y - 0.12)]
    back += [(wide - 0.28, end_y), (0.25, end_y - 0.06)]
    loose = sheet.posed(_around(_both(back)), -0.25)
    if style == "short":
        lit = [sheet.posed(_both(_tufts(0.13 + 0.10 * long)), -0.1)]
    for shape in [loose, *lit]:
        sheet.outline(shape, c.hair_line, 0.03)
    sheet.fill(loose, c.hair_shade)
    if lit:
        sheet.fade([c.hair, c.hair_tip], sheet.frame, sheet.mask(*lit))


def _tufts(out: float) -> list[Point]:
    """Return the right half of a shock of hair that stands off the head by `out`."""
    roots = [(0.0, -0.94), (0.42, -0.83), (0.68, -0.50), (0.74, -0.10), (0.68, 0.24)]
    ways = [(0.9, -0.1), (1.0, 0.35), (0.9, 0.75), (0.6, 1.0)]
    shape: list[Point] = []
    for (x, y), (next_x, next_y), (right, down) in zip(roots, roots[1:], ways, strict=False):
        tip = (next_x + out * right, next_y + out * down)
        shape += _bend((x, y), ((x + tip[0]) / 2 + 0.09, (y + tip[1]) / 2 - 0.07), tip)
        shape += _bend(tip, ((tip[0] + next_x) / 2, (tip[1] + next_y) / 2), (next_x, next_y), 2)
    return [*shape, (0.60, 0.40), (0.3, 0.4)]


def _draw_body(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    neck = [(0.17, 0.4), (0.17, 0.82), (0.34, 1.1)]
    sheet.fill(sheet.flat(_both(neck)), c.skin_shade)
    body = sheet.flat(_both(_through([(0.16, 0.85), (0.36, 0.87), (0.64, 0.93), (0.84, 1.15)])))
    kind = CLOTHES_KINDS[f.clothes_kind]
    sheet.fill(body, _WHITE if kind == "sailor" else c.cloth)
    sheet.outline(body, c.cloth_shade)
    if kind == "sailor":
        sheet.fill(sheet.flat(_both([(0.17, 0.80), (0.02, 1.1)])), c.skin_shade)
        for side in (-1, 1):
            collar = sheet.flat(_mirror([(0.15, 0.80), (0.42, 0.88), (0.54, 1.1), (0, 1.1)], side))
            sheet.fill(collar, c.cloth)
            sheet.outline(collar, c.cloth_shade)
    elif kind == "round neck":
        sheet.fill(sheet.flat(_ellipse(0, 0.83, 0.25, 0.14)), c.cloth_shade)
        sheet.fill(sheet.flat(_ellipse(0, 0.81, 0.21, 0.12)), c.skin_shade)
    else:
        roll = sheet.flat(_around(_both([(0.20, 0.74), (0.25, 0.84), (0.22, 0.94)])))
        sheet.fill(roll, c.cloth)
        sheet.outline(roll, c.cloth_shade)


def _face_outline(f: FaceFactors) -> list[Point]:
    wide = 0.575 + 0.035 * f.face_width
    jaw, chin = 0.61 + 0.11 * f.chin, 0.12 + 0.13 * f.chin
    half = [(0, -0.62), (0.40, -0.52), (wide, -0.15), (wide + 0.01, 0.14), (wide * 0.93, 0.36)]
    half += [(wide * jaw, 0.56), (chin, 0.685), (0, 0.715)]
    return _around(_both(half))


def _draw_skin(sheet: _Sheet, f: FaceFactors, c: _Palette, fringe: list[Pixel]) -> None:
    for side in (-1, 1):
        ear = sheet.posed(_ellipse(side * 0.60, 0.18, 0.09, 0.15, 12), 0.2)
        sheet.fill(ear, c.skin_shade)
        sheet.outline(ear, c.skin_line)
    face = sheet.posed(_face_outline(f), 0.8)
    sheet.fill(face, c.skin)
    fall = round(0.034 * sheet.side)
    shadow = sheet.mask([(x, y + fall) for x, y in fringe])
    sheet.paint(c.skin_shade, ImageChops.darker(sheet.mask(face), shadow))
    for side in (-1, 1):
        for part in (1.0, 0.75, 0.5):
            cheek = _ellipse(side * 0.37, 0.365, 0.15 * part, 0.085 * part, 14)
            sheet.fill(sheet.posed(cheek), _mix(c.skin, c.blush, f.blush * (1.15 - part)))
    sheet.outline(face, c.skin_line)
    nose = _stroke(_bend((0.012, 0.295), (-0.02, 0.335), (0.018, 0.345)), 0.008, 0.022, 0.01)
    sheet.fill(sheet.posed(nose, 1.25), _mix(c.skin_shade, c.skin_line, 0.6))


def _draw_mouth(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    wide, bow = 0.125 + 0.025 * f.smile, 0.05 * f.smile
    y, deep = 0.485, 0.02 + 0.14 * f.mouth_open
    right = (wide, y - bow)
    half = [(wide * 0.5, y + bow * 0.35), (0, y + bow * 0.6)]
    upper = _through([right, *half, (-wide * 0.5, half[0][1]), (-wide, y - bow)])
    if f.mouth_open > 0.15:
        floor = [(-wide * 0.7, y + deep * 0.7), (0, y + deep), (wide * 0.7, y + deep * 0.7)]
        hole = sheet.posed(upper + _through([upper[-1], *floor, right]))
        sheet.fill(hole, c.mouth)
        sheet.fill(sheet.posed(_ellipse(0, y + deep * 0.78, wide * 0.5, deep * 0.28, 14)), c.tongue)
        sheet.outline(hole, c.mouth)
    sheet.fill(sheet.posed(_stroke(upper, 0.016, 0.028, 0.016)), c.mouth)


@dataclass(frozen=True)
class _Eye:
    """One eye: places in it are -1 (inner corner, top) to 1 (outer corner, bottom)."""

    sheet: _Sheet
    side: int
    size: float
    tilt: float

    def at(self, points: list[Point]) -> list[Pixel]:
        """Carry places in the eye to pixels."""
        wide, tall, lift = 0.195 + 0.03 * self.size, 0.228 + 0.045 * self.size, 0.035 * self.tilt
        return self.sheet.posed(
            [(self.side * (0.295 + wide * u), 0.105 + tall * v - lift * u) for u, v in points]
        )


def _lids(f: FaceFactors) -> tuple[list[Point], list[Point]]:
    """Return the upper and the lower lid, from the inner corner to the outer one."""
    # They meet where a closed eye lies: in a bow when the face smiles, else in a bowl.
    bow = 0.75 - 1.5 * max(0.0, f.smile)
    shut = [bow * v + 0.25 for v in (0.0, 0.45, 0.65, 0.6, 0.3, 0.0)]
    across = (-0.95, -0.62, -0.1, 0.45, 0.85, 1.0)
    lids = []
    for open_lid in ((0.22, -0.62, -0.98, -0.88, -0.45, 0.0), (0.22, 0.78, 0.98, 0.94, 0.60, 0.0)):
        heights = [s + (v - s) * f.eye_openness for v, s in zip(open_lid, shut, strict=True)]
        lids.append(_through(list(zip(across, heights, strict=True)), 3))
    return lids[0], lids[1]


def _draw_eyes(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    upper, lower = _lids(f)
    eyes = [_Eye(sheet, side, f.eye_size - 0.5, f.eye_tilt) for side in (-1, 1)]
    is_open = f.eye_openness > 0.12
    if is_open:
        balls = _Sheet(f, sheet.side // SUPERSAMPLING, _WHITE)
        for eye in eyes:
            _draw_ball(balls, eye, f, c)
        sheet.paint(balls.image, sheet.mask(*(eye.at(upper + lower[::-1]) for eye in eyes)))
    (_, before), (outer, corner) = upper[-5], upper[-1]
    wing = [(0.70, before - 0.12), (outer + 0.20, corner - 0.20), (outer + 0.03, corner + 0.12)]
    for eye in eyes:
        if is_open:
            crease = [(u, v - 0.26) for u, v in upper[5:-3]]
            sheet.fill(eye.at(_stroke(crease, 0.02, 0.05, 0.02)), c.skin_line)
            sheet.fill(eye.at(_stroke(lower[6:-2], 0.02, 0.07, 0.02)), c.skin_line)
        sheet.fill(eye.at(_stroke(upper, 0.10, 0.26, 0.20)), c.lash)
        sheet.fill(eye.at(wing), c.lash)


def _draw_ball(balls: _Sheet, eye: _Eye, f: FaceFactors, c: _Palette) -> None:
    """Draw what a wide open eye would show."""
    x, y = eye.side * 0.16 * f.gaze_x - 0.02, 0.12 * f.gaze_y
    lid_shadow = [(-1.2, -1.2), (1.2, -1.2), (1.2, -0.55), (-1.2, -0.55)]
    balls.fill(eye.at(lid_shadow), c.white_shade)
    disc = eye.at(_ellipse(x, y + 0.02, 0.69, 0.93, 22))
    balls.fade([c.iris_dark, c.iris, c.iris_light], _bounds(disc), balls.mask(disc))
    balls.outline(disc, c.iris_dark, 0.022)
    balls.fill(eye.at(_ellipse(x, y, 0.27, 0.42, 16)), c.pupil)
    # The light comes from the upper left for both eyes.
    balls.fill(eye.at(_ellipse(x - eye.side * 0.26, y - 0.40, 0.25, 0.28, 14)), _WHITE)
    balls.fill(eye.at(_ellipse(x + eye.side * 0.28, y + 0.48, 0.14, 0.14, 12)), _WHITE)


# Each lock of a fringe, from right to left: the place of its tip, and how high the gap after it is.
_FRINGES: dict[str, list[tuple[float, float, float]]] = {
    "spiky": [
        (0.57, 0.12, -0.20),
        (0.34, 0.00, -0.24),
        (0.08, 0.06, -0.22),
        (-0.18, 0.00, -0.24),
        (-0.40, 0.02, -0.20),
        (-0.57, 0.12, 0.0),
    ],
    "straight": [
        (0.57, 0.04, -0.10),
        (0.34, -0.06, -0.11),
        (0.12, -0.05, -0.11),
        (-0.12, -0.05, -0.11),
        (-0.34, -0.06, -0.10),
        (-0.57, 0.04, 0.0),
    ],
    "parted": [
        (0.58, 0.24, -0.10),
        (0.46, -0.02, -0.52),
        (-0.46, -0.02, -0.10),
        (-0.58, 0.24, 0.0),
    ],
    "swept": [
        (0.58, 0.16, -0.48),
        (0.10, 0.02, -0.16),
        (-0.18, 0.04, -0.14),
        (-0.42, 0.07, -0.08),
        (-0.58, 0.18, 0.0),
    ],
    "middle lock": [
        (0.57, 0.18, -0.24),
        (0.40, -0.02, -0.36),
        (0.0, 0.12, -0.36),
        (-0.40, -0.02, -0.24),
        (-0.57, 0.18, 0.0),
    ],
}
_CAP = [(0, -0.93), (0.30, -0.885), (0.55, -0.71), (0.70, -0.42), (0.735, -0.12), (0.69, 0.08)]
_LOCK_DETAIL = 5


def _locks(f: FaceFactors) -> list[tuple[Point, Point]]:
    """Return the tip of each lock of the fringe and the gap to its left."""
    style = _FRINGES[FRINGE_STYLES[f.fringe_style]]
    drop, lean = 0.11 * (f.fringe_length - 0.5), 0.09 * f.fringe_sweep
    locks = []
    for (x, y, gap), (left, _, _) in zip(style, [*style[1:], style[-1]], strict=True):
        tip = (x + lean * (1 - x * x), y + drop)
        locks.append((tip, ((x + left) / 2 + lean * 0.3, gap + drop * 0.5)))
    locks[-1] = (locks[-1][0], (-_CAP[-1][0], _CAP[-1][1]))
    return locks


def _fringe(f: FaceFactors) -> list[Point]:
    """Return the hair over the forehead, with the top of the head, as one shape."""
    half = _through(_CAP)
    shape = [(-x, y) for x, y in reversed(half)] + half[1:-1]
    here = half[-1]
    for tip, gap in _locks(f):
        right = (here[0] + (tip[0] - here[0]) * 0.1, here[1] + (tip[1] - here[1]) * 0.7)
        left = (gap[0] + (tip[0] - gap[0]) * 0.3, gap[1] + (tip[1] - gap[1]) * 0.6)
        shape += _bend(here, right, tip, _LOCK_DETAIL) + _bend(tip, left, gap, _LOCK_DETAIL)
        here = gap
    return shape


def _draw_side_locks(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    long = f.hair_length
    end = {
        "short": 0.30,
        "long": 0.75 + 0.3 * long,
        "bob": 0.52 + 0.2 * long,
    }.get(HAIR_STYLES[f.hair_style], 0.5 + 0.3 * long)
    outer, tip, inner = (0.74, end * 0.6), (0.60, end), (0.555, end * 0.45)
    edge = _bend(tip, (0.62, end * 0.7), inner) + _bend(inner, (0.50, 0.05), (0.52, -0.20))
    lock = _bend((0.66, -0.35), (0.77, 0.10), outer) + _bend(outer, (0.72, end * 0.9), tip) + edge
    shapes = [sheet.posed(_mirror(lock, side), 0.7) for side in (-1, 1)]
    for shape in shapes:
        sheet.outline(shape, c.hair_line, 0.03)
    sheet.fade([c.hair, c.hair_tip], sheet.frame, sheet.mask(*shapes))
    strand = _bend((0.655, end * 0.80), (0.69, end * 0.3), (0.63, -0.12), 7)
    crease = _stroke(strand, 0.004, 0.026, 0.004)
    for side in (-1, 1):
        sheet.fill(sheet.posed(_mirror(crease, side), 0.7), c.hair_shade)


def _draw_fringe(sheet: _Sheet, f: FaceFactors, c: _Palette, fringe: list[Pixel]) -> None:
    if f.ahoge > 0.2:
        tip = (0.22 * f.ahoge + 0.05, -0.89 - 0.11 * f.ahoge)
        stray = _bend((-0.06, -0.86), (-0.02, tip[1] - 0.08), tip)
        stray += _bend(tip, (0.05, tip[1] + 0.02), (0.04, -0.86))
        sheet.outline(sheet.posed(stray, 0.5), c.hair_line, 0.03)
        sheet.fill(sheet.posed(stray, 0.5), c.hair)
    # At the temples the hair runs on into the side locks, and a short crown into its tufts.
    edge = 2 * _LOCK_DETAIL * len(_locks(f))
    crown, ends = fringe[3 : -edge - 3], fringe[3 + _LOCK_DETAIL - edge : -3 - _LOCK_DETAIL]
    if HAIR_STYLES[f.hair_style] != "short":
        sheet.line(crown, c.hair_line, 0.03)
    sheet.line(ends, c.hair_line, 0.03)
    cap = sheet.mask(fringe)
    sheet.fade([c.hair, c.hair_tip], sheet.frame, cap)
    sheet.paint(c.hair_shine, ImageChops.darker(cap, sheet.mask(sheet.posed(_shine()))))
    for number, (_, gap) in enumerate(_locks(f)[:-1]):
        root = (0.05 * f.fringe_sweep + gap[0] * 0.25, -0.86)
        strand = _bend(gap, (gap[0] * 1.1, (gap[1] + root[1]) / 2 - 0.05), root, 8)
        sheet.fill(
            sheet.posed(_stroke(strand[: 5 + number % 2], 0.034, 0.022, 0.004)), c.hair_shade
        )


def _shine() -> list[Point]:
    """Return the band of light around the head, jagged below."""
    band = _through([(-0.62, -0.34), (-0.45, -0.55), (0, -0.66), (0.45, -0.55), (0.62, -0.34)])
    for number in range(9):
        x = 0.62 - 1.24 * number / 8
        band.append((x, 0.62 * x * x - (0.51 if number % 2 else 0.59)))
    return band


def _draw_brows(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    y, tilt = -0.215 - 0.04 * f.brow_height, 0.05 * f.brow_tilt
    line = _bend((0.15, y + tilt + 0.01), (0.30, y - 0.06), (0.46, y - tilt + 0.02), 8)
    for side in (-1, 1):
        sheet.fill(sheet.posed(_stroke(_mirror(line, side), 0.034, 0.038, 0.01)), c.brow)


def _draw_accessory(sheet: _Sheet, f: FaceFactors, c: _Palette) -> None:
    kind = ACCESSORIES[f.accessory]
    if kind == "ribbon":
        x, y = 0.46, -0.66
        for side in (-1, 1):
            wing = [(0, 0), (0.13, -0.15), (0.25, -0.10), (0.25, 0.10), (0.13, 0.14)]
            shape = sheet.posed(_around([(x + side * u, y + v) for u, v in wing], 3), 0.5)
            sheet.fill(shape, c.accent)
            sheet.outline(shape, c.accent_line, 0.02)
        sheet.fill(sheet.posed(_ellipse(x, y, 0.06, 0.07), 0.5), c.accent_line)
    elif kind == "hairclip":
        for y in (-0.38, -0.28):
            clip = sheet.posed(_stroke([(0.38, y + 0.06), (0.62, y - 0.06)], 0.06, 0.06, 0.06))
            sheet.fill(clip, c.accent)
            sheet.outline(clip, c.accent_line, 0.012)
    elif kind == "cat ears":
        for side in (-1, 1):
            ear = sheet.posed(_mirror([(0.24, -0.84), (0.56, -1.0), (0.66, -0.56)], side), 0.3)
            inside = sheet.posed(_mirror([(0.36, -0.82), (0.54, -0.93), (0.61, -0.65)], side), 0.3)
            sheet.fill(ear, c.hair)
            sheet.outline(ear, c.hair_line)
            sheet.fill(inside, c.blush)
