"""One HTML file that carries all it shows and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any


def page(data: dict[str, Any], kind: str) -> str:
    """Return the page that `kind`.js draws of `data`: nothing in it is taken for markup or code."""
    folder = files("vgx").joinpath("templates", "page")
    text, style, tools, code = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "drawing.js", f"{kind}.js")
    )
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(text).substitute(
        title=html.escape(f"{data['name']} - vgx"),
        style=style,
        code=tools + code,
        style_sum=_sum(style),
        code_sum=_sum(tools + code),
        data=embedded.replace("<", "\\u003c"),
    )


def _sum(text: str) -> str:
    """Return what a Content-Security-Policy calls this text and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
