"""The hair behind the head and the locks beside the face; `fringe` has the hair above it."""

from __future__ import annotations

from vgx_builtin.datasets.face_drawing.colours import Palette
from vgx_builtin.datasets.face_drawing.curves import (
    Point,
    bezier,
    closed_spline,
    ellipse,
    mirrored,
    spline,
    stroke,
    symmetric,
)
from vgx_builtin.datasets.face_drawing.factors import HAIR_STYLES, FaceFactors
from vgx_builtin.datasets.face_drawing.sheet import Pixel, Sheet


def draw_back_hair(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw the hair behind the head: loose hair, tails, buns or tufts."""
    style = HAIR_STYLES[f.hair_style]
    long = f.hair_length
    lit: list[list[Pixel]] = []
    if style in ("twin tails", "side tail"):
        sides = (-1, 1) if style == "twin tails" else (1 if f.fringe_sweep < 0 else -1,)
        end = (0.84, 0.55 + 0.55 * long)
        tail = spline([(0.55, -0.52), (0.80, -0.66), (0.98, -0.36), (0.99, 0.15), end])
        tail += spline([end, (0.74, 0.30), (0.68, -0.05), (0.58, -0.30)])
        lit = [sheet.pose(mirrored(tail, side), -0.2) for side in sides]
    elif style == "buns":
        buns = [ellipse(side * 0.57, -0.70, 0.25, 0.25, 24) for side in (-1, 1)]
        lit = [sheet.pose(bun, -0.2) for bun in buns]
    end_y, wide = {
        "bob": (0.52 + 0.22 * long, 0.84),
        "long": (1.35, 0.80 + 0.10 * long),
        "buns": (0.45 + 0.2 * long, 0.76),
        "short": (0.38, 0.74),
    }.get(style, (0.42, 0.74))
    back = [(0, -0.86), (0.46, -0.74), (0.73, -0.35), (wide, 0.15), (wide - 0.05, end_y - 0.12)]
    back += [(wide - 0.28, end_y), (0.25, end_y - 0.06)]
    loose = sheet.pose(closed_spline(symmetric(back)), -0.25)
    if style == "short":
        lit = [sheet.pose(symmetric(_tufts(0.13 + 0.10 * long)), -0.1)]
    for shape in [loose, *lit]:
        sheet.outline(shape, c.hair_line, 0.03)
    sheet.fill(loose, c.hair_shade)
    if lit:
        sheet.fade([c.hair, c.hair_tip], sheet.frame, sheet.mask(*lit))


def _tufts(out: float) -> list[Point]:
    """Return the right half of tufts of hair that stand off the head by `out`."""
    roots = [(0.0, -0.94), (0.42, -0.83), (0.68, -0.50), (0.74, -0.10), (0.68, 0.24)]
    ways = [(0.9, -0.1), (1.0, 0.35), (0.9, 0.75), (0.6, 1.0)]
    shape: list[Point] = []
    for (x, y), (next_x, next_y), (right, down) in zip(roots, roots[1:], ways, strict=False):
        tip = (next_x + out * right, next_y + out * down)
        shape += bezier((x, y), ((x + tip[0]) / 2 + 0.09, (y + tip[1]) / 2 - 0.07), tip)
        shape += bezier(tip, ((tip[0] + next_x) / 2, (tip[1] + next_y) / 2), (next_x, next_y), 2)
    return [*shape, (0.60, 0.40), (0.3, 0.4)]


def draw_side_locks(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw the locks on both sides of the face."""
    long = f.hair_length
    end = {
        "short": 0.30,
        "long": 0.75 + 0.3 * long,
        "bob": 0.52 + 0.2 * long,
    }.get(HAIR_STYLES[f.hair_style], 0.5 + 0.3 * long)
    outer, tip, inner = (0.74, end * 0.6), (0.60, end), (0.555, end * 0.45)
    edge = bezier(tip, (0.62, end * 0.7), inner) + bezier(inner, (0.50, 0.05), (0.52, -0.20))
    lock = bezier((0.66, -0.35), (0.77, 0.10), outer) + bezier(outer, (0.72, end * 0.9), tip) + edge
    shapes = [sheet.pose(mirrored(lock, side), 0.7) for side in (-1, 1)]
    for shape in shapes:
        sheet.outline(shape, c.hair_line, 0.03)
    sheet.fade([c.hair, c.hair_tip], sheet.frame, sheet.mask(*shapes))
    strand = bezier((0.655, end * 0.80), (0.69, end * 0.3), (0.63, -0.12), 7)
    crease = stroke(strand, 0.004, 0.026, 0.004)
    for side in (-1, 1):
        sheet.fill(sheet.pose(mirrored(crease, side), 0.7), c.hair_shade)
