"""The fringe: the hair on top of the head and over the forehead."""

from __future__ import annotations

from PIL import ImageChops

from vgx_builtin.datasets.face_drawing.colours import Palette
from vgx_builtin.datasets.face_drawing.curves import Point, bezier, spline, stroke
from vgx_builtin.datasets.face_drawing.factors import FRINGE_STYLES, HAIR_STYLES, FaceFactors
from vgx_builtin.datasets.face_drawing.sheet import Pixel, Sheet

# The locks of each fringe, from right to left: the place of the tip, and the y of the gap after it.
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
    """Return the tip of each lock of the fringe, and the gap to its left."""
    style = _FRINGES[FRINGE_STYLES[f.fringe_style]]
    drop, lean = 0.11 * (f.fringe_length - 0.5), 0.09 * f.fringe_sweep
    locks = []
    for (x, y, gap), (left, _, _) in zip(style, [*style[1:], style[-1]], strict=True):
        tip = (x + lean * (1 - x * x), y + drop)
        locks.append((tip, ((x + left) / 2 + lean * 0.3, gap + drop * 0.5)))
    locks[-1] = (locks[-1][0], (-_CAP[-1][0], _CAP[-1][1]))
    return locks


def fringe_outline(f: FaceFactors) -> list[Point]:
    """Return the outline of the hair on top of the head and over the forehead."""
    half = spline(_CAP)
    shape = [(-x, y) for x, y in reversed(half)] + half[1:-1]
    here = half[-1]
    for tip, gap in _locks(f):
        right = (here[0] + (tip[0] - here[0]) * 0.1, here[1] + (tip[1] - here[1]) * 0.7)
        left = (gap[0] + (tip[0] - gap[0]) * 0.3, gap[1] + (tip[1] - gap[1]) * 0.6)
        shape += bezier(here, right, tip, _LOCK_DETAIL) + bezier(tip, left, gap, _LOCK_DETAIL)
        here = gap
    return shape


def draw_fringe(sheet: Sheet, f: FaceFactors, c: Palette, fringe: list[Pixel]) -> None:
    """Draw the stray lock, the fringe, its light and its strands."""
    if f.ahoge > 0.2:
        tip = (0.22 * f.ahoge + 0.05, -0.89 - 0.11 * f.ahoge)
        stray = bezier((-0.06, -0.86), (-0.02, tip[1] - 0.08), tip)
        stray += bezier(tip, (0.05, tip[1] + 0.02), (0.04, -0.86))
        sheet.outline(sheet.pose(stray, 0.5), c.hair_line, 0.03)
        sheet.fill(sheet.pose(stray, 0.5), c.hair)
    # No line at the temples, where the hair goes on in the side locks, nor above tufts.
    edge = 2 * _LOCK_DETAIL * len(_locks(f))
    crown, ends = fringe[3 : -edge - 3], fringe[3 + _LOCK_DETAIL - edge : -3 - _LOCK_DETAIL]
    if HAIR_STYLES[f.hair_style] != "short":
        sheet.line(crown, c.hair_line, 0.03)
    sheet.line(ends, c.hair_line, 0.03)
    cap = sheet.mask(fringe)
    sheet.fade([c.hair, c.hair_tip], sheet.frame, cap)
    sheet.paint(c.hair_shine, ImageChops.darker(cap, sheet.mask(sheet.pose(_shine()))))
    for number, (_, gap) in enumerate(_locks(f)[:-1]):
        root = (0.05 * f.fringe_sweep + gap[0] * 0.25, -0.86)
        strand = bezier(gap, (gap[0] * 1.1, (gap[1] + root[1]) / 2 - 0.05), root, 8)
        sheet.fill(sheet.pose(stroke(strand[: 5 + number % 2], 0.034, 0.022, 0.004)), c.hair_shade)


def _shine() -> list[Point]:
    """Return the band of light around the head, with a jagged lower edge."""
    band = spline([(-0.62, -0.34), (-0.45, -0.55), (0, -0.66), (0.45, -0.55), (0.62, -0.34)])
    for number in range(9):
        x = 0.62 - 1.24 * number / 8
        band.append((x, 0.62 * x * x - (0.51 if number % 2 else 0.59)))
    return band
