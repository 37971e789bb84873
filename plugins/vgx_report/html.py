"""One HTML file with all that it shows: it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any

PAGE = (".html", ".htm")  # endings of the files that a page is written to
LIBRARY = ("drawing.js", "enlarge.js", "charts.js")  # in `page/`, for all kinds of page


def page(data: dict[str, Any], kind: str, *, live: bool = False) -> str:
    """Return the page that the script `kind`.js draws from `data`.

    A live page may load images and data from its own server, and nothing else.

    The data are embedded as JSON, so that no text in them can become markup or code.
    """
    folder = files("vgx_report").joinpath("page")
    text, style, *scripts = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *LIBRARY, f"{kind}.js")
    )
    code = "".join(scripts)
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(text).substitute(
        title=html.escape(f"{data['name']} - vgx"),
        style=style,
        code=code,
        own="'self'" if live else "'none'",
        images="data: 'self'" if live else "data:",
        style_sum=_policy_hash(style),
        code_sum=_policy_hash(code),
        data=embedded.replace("<", "\\u003c"),
    )


def _policy_hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
