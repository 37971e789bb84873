"""Tables in Markdown, and values with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """Return the median with minimum and maximum."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"
