"""One HTML file with all that it shows: it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

PAGE = (".html", ".htm")  # endings of the files that a page is written to
LIBRARY = ("drawing.js", "enlarge.js", "charts.js")  # in `page/`, for all kinds of page
LIVE = ("live.js",)  # for a page that is served, before its own script


def page(
    data: dict[str, Any], kind: str, *, live: bool = False, package: str = "vgx_report"
) -> str:
    """Return the page that the script `kind`.js of a package draws from `data`.

    A live page may load images and data from its own server, and nothing else.
    """
    names = ("page.html", "page.css", *LIBRARY, *(LIVE if live else ()))
    places = [*(("vgx_report", name) for name in names), (package, f"{kind}.js")]
    text, style, *scripts = (
        files(owner).joinpath("page", name).read_text(encoding="utf-8") for owner, name in places
    )
    return filled(
        text,
        data,
        title=f"{data['name']} - vgx",
        style=style,
        code="".join(scripts),
        own="'self'" if live else "'none'",
        images="data: 'self'" if live else "data:",
    )


def filled(
    template: str, data: Mapping[str, Any], *, title: str, style: str, code: str, **others: str
) -> str:
    """Return the template of a page with its title, style, script and data; `others` as they are.

    The data are embedded as JSON, so that no text in them can become markup or code. The page's own
    policy allows no other style and no other script.
    """
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(template).substitute(
        title=html.escape(title),
        style=style,
        code=code,
        style_sum=_policy_hash(style),
        code_sum=_policy_hash(code),
        data=embedded.replace("<", "\\u003c"),
        **others,
    )


def _policy_hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
