"""Skin, ears, nose, mouth and brows."""

from __future__ import annotations

from PIL import ImageChops

from vgx_builtin.datasets.face_drawing.colours import Palette, mix
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
from vgx_builtin.datasets.face_drawing.factors import FaceFactors
from vgx_builtin.datasets.face_drawing.sheet import Pixel, Sheet


def _face_outline(f: FaceFactors) -> list[Point]:
    wide = 0.575 + 0.035 * f.face_width
    jaw, chin = 0.61 + 0.11 * f.chin, 0.12 + 0.13 * f.chin
    half = [(0, -0.62), (0.40, -0.52), (wide, -0.15), (wide + 0.01, 0.14), (wide * 0.93, 0.36)]
    half += [(wide * jaw, 0.56), (chin, 0.685), (0, 0.715)]
    return closed_spline(symmetric(half))


def draw_skin(sheet: Sheet, f: FaceFactors, c: Palette, fringe: list[Pixel]) -> None:
    """Draw ears, face, the shadow of the fringe, cheeks and nose."""
    for side in (-1, 1):
        ear = sheet.pose(ellipse(side * 0.60, 0.18, 0.09, 0.15, 12), 0.2)
        sheet.fill(ear, c.skin_shade)
        sheet.outline(ear, c.skin_line)
    face = sheet.pose(_face_outline(f), 0.8)
    sheet.fill(face, c.skin)
    fall = round(0.034 * sheet.side)
    shadow = sheet.mask([(x, y + fall) for x, y in fringe])
    sheet.paint(c.skin_shade, ImageChops.darker(sheet.mask(face), shadow))
    for side in (-1, 1):
        for part in (1.0, 0.75, 0.5):
            cheek = ellipse(side * 0.37, 0.365, 0.15 * part, 0.085 * part, 14)
            sheet.fill(sheet.pose(cheek), mix(c.skin, c.blush, f.blush * (1.15 - part)))
    sheet.outline(face, c.skin_line)
    nose = stroke(bezier((0.012, 0.295), (-0.02, 0.335), (0.018, 0.345)), 0.008, 0.022, 0.01)
    sheet.fill(sheet.pose(nose, 1.25), mix(c.skin_shade, c.skin_line, 0.6))


def draw_mouth(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw the mouth, open or closed."""
    wide, bow = 0.125 + 0.025 * f.smile, 0.05 * f.smile
    y, deep = 0.485, 0.02 + 0.14 * f.mouth_open
    right = (wide, y - bow)
    half = [(wide * 0.5, y + bow * 0.35), (0, y + bow * 0.6)]
    upper = spline([right, *half, (-wide * 0.5, half[0][1]), (-wide, y - bow)])
    if f.mouth_open > 0.15:
        floor = [(-wide * 0.7, y + deep * 0.7), (0, y + deep), (wide * 0.7, y + deep * 0.7)]
        hole = sheet.pose(upper + spline([upper[-1], *floor, right]))
        sheet.fill(hole, c.mouth)
        sheet.fill(sheet.pose(ellipse(0, y + deep * 0.78, wide * 0.5, deep * 0.28, 14)), c.tongue)
        sheet.outline(hole, c.mouth)
    sheet.fill(sheet.pose(stroke(upper, 0.016, 0.028, 0.016)), c.mouth)


def draw_brows(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw both brows."""
    y, tilt = -0.215 - 0.04 * f.brow_height, 0.05 * f.brow_tilt
    line = bezier((0.15, y + tilt + 0.01), (0.30, y - 0.06), (0.46, y - tilt + 0.02), 8)
    for side in (-1, 1):
        sheet.fill(sheet.pose(stroke(mirrored(line, side), 0.034, 0.038, 0.01)), c.brow)
