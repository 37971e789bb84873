"""Draw a whole face, from the background to the accessory."""

from __future__ import annotations

from PIL import Image

from vgx_builtin.datasets.face_drawing.colours import palette
from vgx_builtin.datasets.face_drawing.eyes import draw_eyes
from vgx_builtin.datasets.face_drawing.face import draw_brows, draw_mouth, draw_skin
from vgx_builtin.datasets.face_drawing.factors import FaceFactors
from vgx_builtin.datasets.face_drawing.fringe import draw_fringe, fringe_outline
from vgx_builtin.datasets.face_drawing.hair import draw_back_hair, draw_side_locks
from vgx_builtin.datasets.face_drawing.scene import draw_accessory, draw_background, draw_body
from vgx_builtin.datasets.face_drawing.sheet import SUPERSAMPLING, Sheet

DRAWING_VERSION = 1
"""Changes when the same seed and index give another image."""


def draw_face(factors: FaceFactors, height: int, width: int) -> Image.Image:
    """Draw a face as an RGB image, in the middle and as large as the smaller side allows."""
    colours = palette(factors)
    sheet = Sheet(factors, height, width, colours.background)
    fringe = sheet.pose(fringe_outline(factors))
    draw_background(sheet, factors, colours)
    draw_back_hair(sheet, factors, colours)
    draw_body(sheet, factors, colours)
    draw_skin(sheet, factors, colours, fringe)
    draw_mouth(sheet, factors, colours)
    draw_eyes(sheet, factors, colours)
    draw_side_locks(sheet, factors, colours)
    draw_fringe(sheet, factors, colours, fringe)
    draw_brows(sheet, factors, colours)
    draw_accessory(sheet, factors, colours)
    return sheet.image.reduce(SUPERSAMPLING)
