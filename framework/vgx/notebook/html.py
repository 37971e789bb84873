"""HTML for notebooks: all text is escaped, and colours fit light and dark pages."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from vgx.output import visible_lines

BORDER = "1px solid rgba(128,128,128,.35)"
CELL = f"padding:2px 10px 2px 0;text-align:left;vertical-align:top;border-bottom:{BORDER}"
MONO = "font-family:ui-monospace,monospace;font-size:12px;white-space:pre-wrap;margin:4px 0"


def escaped(value: object) -> str:
    """Return any value as text that is no markup, and that no terminal obeys."""
    return html.escape(visible_lines(str(value)))


def block(*parts: str) -> str:
    """Return pieces of HTML below each other."""
    return "".join(f'<div style="margin:4px 0">{part}</div>' for part in parts if part)


def title(name: str, *facts: str) -> str:
    """Return a name in bold letters, and facts behind it."""
    text = " · ".join(escaped(fact) for fact in facts if fact)
    return f"<b>{escaped(name)}</b> {text}".rstrip()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; it scrolls when it is wider than the page."""
    head = "".join(f'<th style="{CELL}">{escaped(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{escaped(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    style = "border-collapse:collapse;font-size:13px"
    return f'<div style="overflow-x:auto"><table style="{style}">{inner}</table></div>'


def lines(texts: Sequence[str]) -> str:
    """Return lines of text in letters of equal width."""
    return f'<pre style="{MONO}">{escaped(chr(10).join(texts))}</pre>' if texts else ""


def folded(summary: str, inner: str) -> str:
    """Return something that a click unfolds."""
    if not inner:
        return ""
    return f"<details><summary>{escaped(summary)}</summary>{inner}</details>"


def link(path: Path, text: str) -> str:
    """Return a link to a file, relative to the working directory, which opens a page of its own."""
    return f'<a href="{address(path)}" target="_blank">{escaped(text)}</a>'


def address(path: Path) -> str:
    """Return the relative address of a file: no name of a folder can be that of a protocol."""
    return quote(os.fsencode(os.path.relpath(path)))


def picture(data: bytes, kind: str, alt: str) -> str:
    """Return an image that is part of the page; `kind` is "webp", "png" or "jpeg"."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    style = "max-width:100%;height:auto;image-rendering:pixelated"
    return f'<img src="{source}" alt="{escaped(alt)}" style="{style}">'


def vector(svg: str, alt: str) -> str:
    """Return an SVG drawing as an image: its style is its own, and nothing in it is executed."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return f'<img src="{source}" alt="{escaped(alt)}" style="max-width:100%;height:auto">'
