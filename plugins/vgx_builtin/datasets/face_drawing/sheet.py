"""The surface that a face is drawn on.

Places are in frame units: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom). The frame
is the largest square in the middle of the sheet.
"""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from vgx_builtin.datasets.face_drawing.colours import Colour
from vgx_builtin.datasets.face_drawing.curves import Point
from vgx_builtin.datasets.face_drawing.factors import FaceFactors

SUPERSAMPLING = 4

Pixel = tuple[int, int]
Box = tuple[int, int, int, int]

_HEAD = 0.96  # scale of the head, which leaves room for hair and ears above it
_NECK = 0.55  # y around which the head tilts
_ROLL_DEGREES = 10.0


class Sheet:
    """An image to draw on, `SUPERSAMPLING` times as large, and the pose of the head on it."""

    def __init__(self, f: FaceFactors, height: int, width: int, colour: Colour) -> None:
        self.height, self.width = height, width
        size = width * SUPERSAMPLING, height * SUPERSAMPLING
        self.side = min(size)  # of the frame
        self.left, self.top = ((each - self.side) // 2 for each in size)  # of the frame
        self.image = Image.new("RGB", size, colour)
        self.pen = ImageDraw.Draw(self.image)
        self.yaw, self.pitch = 0.17 * f.yaw, 0.09 * f.pitch
        angle = math.radians(_ROLL_DEGREES * f.roll)
        # Rounded, because the last bit of a sine is not the same on every machine.
        self.cos, self.sin = round(math.cos(angle), 9), round(math.sin(angle), 9)

    def to_pixels(self, points: list[Point]) -> list[Pixel]:
        """Convert frame units to whole pixels, which are the same on every machine."""
        half = self.side / 2
        return [
            (round((x + 1) * half) + self.left, round((y + 1) * half) + self.top) for x, y in points
        ]

    def pose(self, points: list[Point], depth: float = 1.0) -> list[Pixel]:
        """Convert points of the head to pixels: turn, nod and tilt them with the head.

        `depth` is 1 for the face and negative behind the head's axis. Turning moves the middle of
        the head most and its rim not at all, which makes the far eye narrower than the near one.
        """
        half = self.side / 2
        yaw, pitch = self.yaw * depth, self.pitch * depth
        cos, sin = _HEAD * half * self.cos, _HEAD * half * self.sin
        pixels = []
        for x, y in points:
            bulge = 1 - 1.5 * x * x
            px = x + yaw * bulge if bulge > 0 else x
            bulge = 1 - y * y
            py = (y + pitch * bulge if bulge > 0 else y) - _NECK
            across, down = px * cos - py * sin + half, px * sin + py * cos + (1 + _NECK) * half
            pixels.append((round(across) + self.left, round(down) + self.top))
        return pixels

    def fill(self, pixels: list[Pixel], colour: Colour) -> None:
        """Fill a shape."""
        self.pen.polygon(pixels, colour)

    def line(self, pixels: list[Pixel], colour: Colour, width: float = 0.016) -> None:
        """Draw an open line; its width is in frame units."""
        self.pen.line(pixels, colour, max(1, round(width * self.side / 2)))

    def outline(self, pixels: list[Pixel], colour: Colour, width: float = 0.016) -> None:
        """Draw the outline of a closed shape; its width is in frame units."""
        self.line([*pixels, pixels[0]], colour, width)

    def mask(self, *shapes: list[Pixel]) -> Image.Image:
        """Return an image that is 255 inside the shapes and 0 outside."""
        mask = Image.new("L", self.image.size)
        pen = ImageDraw.Draw(mask)
        for pixels in shapes:
            pen.polygon(pixels, 255)
        return mask

    def paint(self, paint: Image.Image | Colour, mask: Image.Image) -> None:
        """Put a colour, or an image as large as the sheet, where the mask is 255."""
        box = mask.getbbox()
        if box:
            part = paint.crop(box) if isinstance(paint, Image.Image) else paint
            self.image.paste(part, box, mask.crop(box))

    def fade(self, colours: list[Colour], box: Box, mask: Image.Image) -> None:
        """Paint a vertical gradient over a box, where the mask is 255."""
        left, top, right, bottom = box
        stops = Image.new("RGB", (1, len(colours)))
        stops.putdata(colours)
        # From the middle of the first pixel to the middle of the last: linear between them.
        between = (0, 0.5, 1, len(colours) - 0.5)
        column = stops.resize((1, bottom - top), Image.Resampling.BILINEAR, between)
        paint = column.resize((right - left, bottom - top), Image.Resampling.NEAREST)
        self.image.paste(paint, (left, top), mask.crop(box))

    @property
    def frame(self) -> Box:
        """The box of the whole sheet."""
        return 0, 0, *self.image.size

    @property
    def bottom(self) -> float:
        """The y of the sheet's lower edge: 1, or more where it is higher than wide."""
        return (self.image.height - self.top) / self.side * 2 - 1


def bounds(pixels: list[Pixel]) -> Box:
    """Return the smallest box around pixels."""
    across, down = [x for x, _ in pixels], [y for _, y in pixels]
    return min(across), min(down), max(across) + 1, max(down) + 1
