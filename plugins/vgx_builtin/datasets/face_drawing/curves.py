"""Curves as lists of points: splines, ellipses, and the outlines of brush strokes.

Points are places in frame units (see `sheet`).
"""

from __future__ import annotations

import math
from functools import lru_cache

Point = tuple[float, float]


@lru_cache
def _spline_weights(detail: int) -> list[tuple[float, float, float, float]]:
    """Return the Catmull-Rom weights of four points at `detail` places between the middle two."""
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


def spline(points: list[Point], detail: int = 4) -> list[Point]:
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


def closed_spline(points: list[Point], detail: int = 4) -> list[Point]:
    """Return a smooth closed curve through the points."""
    turns = len(points) * detail
    curve = spline([points[-1], *points, points[0], points[1]], detail)
    return curve[detail : detail + turns]


def bezier(start: Point, control: Point, end: Point, detail: int = 5) -> list[Point]:
    """Return a quadratic Bezier curve from start to end, without the end itself."""
    curve = []
    for step in range(detail):
        t = step / detail
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        curve.append(
            (
                a * start[0] + b * control[0] + c * end[0],
                a * start[1] + b * control[1] + c * end[1],
            )
        )
    return curve


@lru_cache
def _circle(corners: int) -> list[Point]:
    # Rounded, because the last bit of a sine is not the same on every machine.
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(round(math.cos(turn), 9), round(math.sin(turn), 9)) for turn in turns]


def ellipse(x: float, y: float, width: float, height: float, corners: int = 18) -> list[Point]:
    """Return an ellipse with this centre, half width and half height."""
    return [(x + width * cx, y + height * cy) for cx, cy in _circle(corners)]


def symmetric(points: list[Point]) -> list[Point]:
    """Close a right half, listed from top to bottom, by its mirror image."""
    return points + [(-x, y) for x, y in reversed(points) if x != 0]


def mirrored(points: list[Point], side: int) -> list[Point]:
    """Return the points of a right side for `side` 1, their mirror image for `side` -1."""
    return [(side * x, y) for x, y in points]


def stroke(line: list[Point], start: float, middle: float, end: float) -> list[Point]:
    """Return the outline of a brush stroke along a line, from its three widths."""
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
