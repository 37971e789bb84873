"""The curves of a training as a small drawing in SVG: one chart for each number.

The whole figures are those of `vgx.plot`; this is quick enough to be drawn each second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from vgx.notebook.html import escaped
from vgx.output import short
from vgx.runs.frames import evenly
from vgx.runs.reading import Line

WIDTH, HEIGHT, LEFT, TOP = 220, 96, 4, 20  # pixels of a chart, and of its margins
POINTS = 160  # of a curve, at most
CHARTS = 12  # at most
SMOOTH = 0.9  # share of the former mean in the mean that is drawn over many points
Kind = Literal["losses", "metrics", "figures"]
KINDS: tuple[Kind, ...] = ("losses", "metrics", "figures")
MANY = 40  # points from which on a mean is drawn


def charts(lines: Sequence[Line]) -> str:
    """Return a chart for each term of the losses, each metric and each figure of a part.

    An empty text when nothing was logged.
    """
    drawn = [
        _chart(name, points)
        for kind in KINDS
        for name, points in _series(lines, kind).items()
        if len(points) > 1
    ]
    style = "display:flex;flex-wrap:wrap;gap:8px"
    return f'<div style="{style}">{"".join(drawn[:CHARTS])}</div>' if drawn else ""


def _series(lines: Sequence[Line], kind: Kind) -> dict[str, list[tuple[int, float]]]:
    """Return steps and finite values of each number of a kind."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.get(kind, {}).items():
            if math.isfinite(value):
                series.setdefault(name, []).append((line["step"], value))
    return series


def _chart(name: str, points: list[tuple[int, float]]) -> str:
    last, means = points[-1][1], _means(points)
    low, high = (limit(value for _, value in points) for limit in (min, max))
    first, end = points[0][0], points[-1][0]
    span, room = (high - low) or 1.0, HEIGHT - TOP - 6

    def line(values: list[tuple[int, float]], style: str) -> str:
        places = (
            f"{LEFT + (step - first) / max(end - first, 1) * (WIDTH - 2 * LEFT):.1f},"
            f"{TOP + (high - value) / span * room:.1f}"
            for step, value in evenly(values, POINTS)
        )
        return f'<polyline points="{" ".join(places)}" fill="none" {style}/>'

    raw = line(points, f'stroke="#2f86c9" stroke-width="1.5" opacity="{0.35 if means else 1}"')
    mean = line(means, 'stroke="#2f86c9" stroke-width="1.8"') if means else ""
    about = f"steps {first:,} to {end:,}: {low:.4g} to {high:.4g}"
    text = 'fill="currentColor" font-family="sans-serif"'
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escaped(short(name))}, {about}</title>"
        f'<text x="{LEFT}" y="13" font-size="12" {text}>{escaped(_cut(name))}</text>'
        f'<text x="{WIDTH - LEFT}" y="13" font-size="12" text-anchor="end" {text}>{last:.3g}</text>'
        f'<path d="M{LEFT} {HEIGHT - 3}H{WIDTH - LEFT}" stroke="currentColor" opacity=".3"/>'
        f"{raw}{mean}</svg>"
    )


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"


def _means(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return moving means of many points; nothing for a few, which are seen as they are."""
    if len(points) < MANY:
        return []
    means, weight, total = [], 0.0, 0.0
    for step, value in points:
        weight, total = SMOOTH * weight + 1, SMOOTH * total + value
        means.append((step, total / weight))
    return means
