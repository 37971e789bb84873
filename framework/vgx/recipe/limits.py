"""What no recipe has a use for: texts, numbers and depths that would hurt what reads them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from vgx.recipe.yaml import Fault, Node

MAX_LENGTH = 2000  # letters of a text


def unfit(node: Node, field: str = "") -> Iterator[Fault]:
    """Find values that no part has a use for, and that libraries would stumble over."""
    if isinstance(node.value, dict | list):
        named = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
        for key, child in named:
            if isinstance(key, str) and (why := _unfit_text(key)):
                yield Fault(child.key_place, f"{field}: a key {why}: {short(key)}".lstrip(": "))
            yield from unfit(child, f"{field}.{key}".lstrip("."))
    elif isinstance(node.value, str) and (why := _unfit_text(node.value)):
        yield Fault(node.place, f"{field}: a text {why} (here: {short(repr(node.value))})")
    elif isinstance(node.value, int) and not -(2**63) <= node.value < 2**63:
        yield Fault(node.place, f"{field}: a whole number of more than 64 bits")


def _unfit_text(text: str) -> str:
    if len(text) > MAX_LENGTH:
        return f"of more than {MAX_LENGTH:,} letters"
    # Control characters, and halves of characters, which no file can be called by.
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        return "with characters that can't be printed"
    return ""


def short(text: str) -> str:
    """Return a text as a message has room for it."""
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} letters)"


def visible(text: str) -> str:
    """Show by its number what a terminal would obey, or could not encode."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
