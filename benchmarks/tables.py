"""Tables in Markdown, and values with their spread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between(page: Path, name: str, text: str) -> None:
    """Put a text between a page's marks `<!-- name -->` and `<!-- end -->`; the rest stays."""
    marks = rf"(<!-- {name} -->\n).*?\n?(<!-- end -->)"
    new, count = re.subn(
        marks, lambda m: f"{m[1]}{text}\n{m[2]}", page.read_text(), flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{page}: no place for {name}")
    page.write_text(new)


def spread(values: Sequence[float]) -> str:
    """Return the median with minimum and maximum."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"
