"""Names of data sets of the hub, as people copy them: from the address bar, from a program."""

from __future__ import annotations

import re
from urllib.parse import unquote

import vgx

_ADDRESS = re.compile(
    r"(?:hf:/+|(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/)(?P<rest>[^?#]*)(?:[?#].*)?"
)
_PAGES = ("tree", "blob", "resolve", "raw", "commit", "viewer")
"""What may follow the name in an address: a revision, or a configuration and a split."""
_OTHER_PAGES = ("discussions", "settings", "commits", "edit")


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a data set: `owner/name`, or `name` for a few."""
    return re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", text) is not None


def from_address(text: str) -> dict[str, str]:
    """Return the fields that an address of the hub stands for, or an empty dict for other texts.

    The fields are `path`, and `revision`, `config` and `split` where the address has them. Raises
    `RecipeError` for an address of something else than a data set.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return {}
    where = f"dataset huggingface: {text}"
    kind, *parts = [unquote(part) for part in match["rest"].split("/") if part] or [""]
    if kind != "datasets" or not parts:
        raise vgx.RecipeError(
            f"{where}: not the address of a data set, which is "
            "https://huggingface.co/datasets/OWNER/NAME; set dataset.path=OWNER/NAME"
        )
    owned = len(parts) > 1 and parts[1] not in (*_PAGES, *_OTHER_PAGES)
    name, _, revision = "/".join(parts[: 1 + owned]).partition("@")
    page, *rest = parts[1 + owned :] or [""]
    fields = {"path": name, "revision": revision}
    if page == "viewer":
        fields |= dict(zip(("config", "split"), rest, strict=False))
    elif page in _PAGES and rest:
        length = 3 if rest[0] == "refs" else 1  # refs/convert/parquet
        fields["revision"], rest = "/".join(rest[:length]), rest[length:]
        if rest:
            page = "/".join(rest)
    if not is_name(name) or page not in ("", *_PAGES, *_OTHER_PAGES):
        raise vgx.RecipeError(
            f"{where}: a data set is opened as a whole, not '{page}' in it: set "
            f"dataset.path={name}, and dataset.config or dataset.split for a part of it"
        )
    return {key: value for key, value in fields.items() if value}
