"""What surrounds the face: the background, neck and clothes, the accessory."""

from __future__ import annotations

from PIL import Image

from vgx_builtin.datasets.face_drawing.colours import WHITE, Palette
from vgx_builtin.datasets.face_drawing.curves import (
    closed_spline,
    ellipse,
    mirrored,
    spline,
    stroke,
    symmetric,
)
from vgx_builtin.datasets.face_drawing.factors import (
    ACCESSORIES,
    BACKGROUND_KINDS,
    CLOTHES_KINDS,
    FaceFactors,
)
from vgx_builtin.datasets.face_drawing.sheet import Sheet


def draw_background(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw the disc or the gradient; a plain background is there already."""
    kind = BACKGROUND_KINDS[f.background_kind]
    if kind == "gradient":
        everywhere = Image.new("L", sheet.image.size, 255)
        sheet.fade([c.background, c.background_light], sheet.frame, everywhere)
    elif kind == "disc":
        sheet.fill(sheet.to_pixels(ellipse(0, -0.05, 0.93, 0.93, 48)), c.background_light)


def draw_body(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw neck and clothes."""
    neck = [(0.17, 0.4), (0.17, 0.82), (0.34, 1.1)]
    sheet.fill(sheet.to_pixels(symmetric(neck)), c.skin_shade)
    shoulder = spline([(0.16, 0.85), (0.36, 0.87), (0.64, 0.93), (0.84, 1.15)])
    # A sheet that is higher than wide shows more of the body.
    body = sheet.to_pixels(symmetric([*shoulder, (0.84, sheet.bottom + 0.15)]))
    kind = CLOTHES_KINDS[f.clothes_kind]
    sheet.fill(body, WHITE if kind == "sailor" else c.cloth)
    sheet.outline(body, c.cloth_shade)
    if kind == "sailor":
        sheet.fill(sheet.to_pixels(symmetric([(0.17, 0.80), (0.02, 1.1)])), c.skin_shade)
        for side in (-1, 1):
            half = [(0.15, 0.80), (0.42, 0.88), (0.54, 1.1), (0, 1.1)]
            collar = sheet.to_pixels(mirrored(half, side))
            sheet.fill(collar, c.cloth)
            sheet.outline(collar, c.cloth_shade)
    elif kind == "round neck":
        sheet.fill(sheet.to_pixels(ellipse(0, 0.83, 0.25, 0.14)), c.cloth_shade)
        sheet.fill(sheet.to_pixels(ellipse(0, 0.81, 0.21, 0.12)), c.skin_shade)
    else:
        roll = sheet.to_pixels(closed_spline(symmetric([(0.20, 0.74), (0.25, 0.84), (0.22, 0.94)])))
        sheet.fill(roll, c.cloth)
        sheet.outline(roll, c.cloth_shade)


def draw_accessory(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw the ribbon, the hairclip or the cat ears."""
    kind = ACCESSORIES[f.accessory]
    if kind == "ribbon":
        x, y = 0.46, -0.66
        for side in (-1, 1):
            wing = [(0, 0), (0.13, -0.15), (0.25, -0.10), (0.25, 0.10), (0.13, 0.14)]
            shape = sheet.pose(closed_spline([(x + side * u, y + v) for u, v in wing], 3), 0.5)
            sheet.fill(shape, c.accent)
            sheet.outline(shape, c.accent_line, 0.02)
        sheet.fill(sheet.pose(ellipse(x, y, 0.06, 0.07), 0.5), c.accent_line)
    elif kind == "hairclip":
        for y in (-0.38, -0.28):
            clip = sheet.pose(stroke([(0.38, y + 0.06), (0.62, y - 0.06)], 0.06, 0.06, 0.06))
            sheet.fill(clip, c.accent)
            sheet.outline(clip, c.accent_line, 0.012)
    elif kind == "cat ears":
        for side in (-1, 1):
            ear = sheet.pose(mirrored([(0.24, -0.84), (0.56, -1.0), (0.66, -0.56)], side), 0.3)
            inside = sheet.pose(mirrored([(0.36, -0.82), (0.54, -0.93), (0.61, -0.65)], side), 0.3)
            sheet.fill(ear, c.hair)
            sheet.outline(ear, c.hair_line)
            sheet.fill(inside, c.blush)
