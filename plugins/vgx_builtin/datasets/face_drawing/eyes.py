"""The eyes: lids, lashes, irises and pupils."""

from __future__ import annotations

from dataclasses import dataclass

from vgx_builtin.datasets.face_drawing.colours import WHITE, Palette
from vgx_builtin.datasets.face_drawing.curves import Point, ellipse, spline, stroke
from vgx_builtin.datasets.face_drawing.factors import FaceFactors
from vgx_builtin.datasets.face_drawing.sheet import Pixel, Sheet, bounds


@dataclass(frozen=True)
class _Eye:
    """One eye; places in it go from -1 (inner corner, top) to 1 (outer corner, bottom)."""

    sheet: Sheet
    side: int
    size: float
    tilt: float

    def to_pixels(self, points: list[Point]) -> list[Pixel]:
        """Convert places in the eye to pixels."""
        wide, tall, lift = 0.195 + 0.03 * self.size, 0.228 + 0.045 * self.size, 0.035 * self.tilt
        return self.sheet.pose(
            [(self.side * (0.295 + wide * u), 0.105 + tall * v - lift * u) for u, v in points]
        )


def _lids(f: FaceFactors) -> tuple[list[Point], list[Point]]:
    """Return the upper and the lower lid, from the inner corner to the outer one."""
    # A closed eye is a line between them: an arch when the face smiles, else a bowl.
    bow = 0.75 - 1.5 * max(0.0, f.smile)
    shut = [bow * v + 0.25 for v in (0.0, 0.45, 0.65, 0.6, 0.3, 0.0)]
    across = (-0.95, -0.62, -0.1, 0.45, 0.85, 1.0)
    lids = []
    for open_lid in ((0.22, -0.62, -0.98, -0.88, -0.45, 0.0), (0.22, 0.78, 0.98, 0.94, 0.60, 0.0)):
        heights = [s + (v - s) * f.eye_openness for v, s in zip(open_lid, shut, strict=True)]
        lids.append(spline(list(zip(across, heights, strict=True)), 3))
    return lids[0], lids[1]


def draw_eyes(sheet: Sheet, f: FaceFactors, c: Palette) -> None:
    """Draw both eyes."""
    upper, lower = _lids(f)
    eyes = [_Eye(sheet, side, f.eye_size - 0.5, f.eye_tilt) for side in (-1, 1)]
    is_open = f.eye_openness > 0.12
    if is_open:
        eyeballs = Sheet(f, sheet.height, sheet.width, WHITE)
        for eye in eyes:
            _draw_eyeball(eyeballs, eye, f, c)
        openings = [eye.to_pixels(upper + lower[::-1]) for eye in eyes]
        sheet.paint(eyeballs.image, sheet.mask(*openings))
    (_, before), (outer, corner) = upper[-5], upper[-1]
    wing = [(0.70, before - 0.12), (outer + 0.20, corner - 0.20), (outer + 0.03, corner + 0.12)]
    for eye in eyes:
        if is_open:
            crease = [(u, v - 0.26) for u, v in upper[5:-3]]
            sheet.fill(eye.to_pixels(stroke(crease, 0.02, 0.05, 0.02)), c.skin_line)
            sheet.fill(eye.to_pixels(stroke(lower[6:-2], 0.02, 0.07, 0.02)), c.skin_line)
        sheet.fill(eye.to_pixels(stroke(upper, 0.10, 0.26, 0.20)), c.lash)
        sheet.fill(eye.to_pixels(wing), c.lash)


def _draw_eyeball(eyeballs: Sheet, eye: _Eye, f: FaceFactors, c: Palette) -> None:
    """Draw what a wide open eye shows."""
    x, y = eye.side * 0.16 * f.gaze_x - 0.02, 0.12 * f.gaze_y
    lid_shadow = [(-1.2, -1.2), (1.2, -1.2), (1.2, -0.55), (-1.2, -0.55)]
    eyeballs.fill(eye.to_pixels(lid_shadow), c.white_shade)
    disc = eye.to_pixels(ellipse(x, y + 0.02, 0.69, 0.93, 22))
    eyeballs.fade([c.iris_dark, c.iris, c.iris_light], bounds(disc), eyeballs.mask(disc))
    eyeballs.outline(disc, c.iris_dark, 0.022)
    eyeballs.fill(eye.to_pixels(ellipse(x, y, 0.27, 0.42, 16)), c.pupil)
    # The light comes from the upper left for both eyes.
    eyeballs.fill(eye.to_pixels(ellipse(x - eye.side * 0.26, y - 0.40, 0.25, 0.28, 14)), WHITE)
    eyeballs.fill(eye.to_pixels(ellipse(x + eye.side * 0.28, y + 0.48, 0.14, 0.14, 12)), WHITE)
