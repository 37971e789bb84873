"""What columns hold, by the words of the library `datasets` and in words for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBERS = ("int", "uint", "float", "bool")


def rank(kind: Any) -> int:
    """Return how surely a column holds images.

    3: the library or its layout says so; 2: bytes; 1: numbers in two or three dimensions.
    """
    import datasets

    if isinstance(kind, datasets.Image):
        return 3
    if isinstance(kind, dict):
        data, path = kind.get("bytes"), kind.get("path")
        files = {"bytes", "path"}  # in a parquet file that the library did not write
        return (
            3 if _is_binary(data) or set(kind) == files or (is_text(path) and len(kind) == 1) else 0
        )
    if _is_binary(kind):
        return 2
    return 1 if numbers_in(kind) else 0


def numbers_in(kind: Any) -> str:
    """Return the type of the numbers in a column of two or three dimensions, or an empty text."""
    import datasets

    if isinstance(kind, datasets.Array2D | datasets.Array3D):
        return str(kind.dtype)
    axes = 0
    while isinstance(kind, datasets.List | datasets.LargeList):
        axes, kind = axes + 1, kind.feature
    known = isinstance(kind, datasets.Value) and kind.dtype.startswith(_NUMBERS)
    return str(kind.dtype) if axes in (2, 3) and known else ""


def _is_binary(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.Value) and "binary" in kind.dtype


def is_text(kind: Any) -> bool:
    """Return whether a column holds text."""
    import datasets

    return isinstance(kind, datasets.Value) and "string" in kind.dtype


def feature_at(features: Mapping[str, Any], column: str) -> Any:
    """Return what a column holds, or a part of one such as `images.0`; None if there is none."""
    import datasets

    if column in features:
        return features[column]
    outer, *inner = column.split(".")
    found = features.get(outer)
    for key in inner:
        if isinstance(found, datasets.List | datasets.LargeList):
            found = found.feature if re.fullmatch(r"[0-9]{1,6}", key) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def listed(features: Mapping[str, Any]) -> str:
    """Return the columns with what they hold, as a text for a message."""
    names = [f"{name} ({described_type(kind)})" for name, kind in list(features.items())[:20]]
    more = f", and {len(features) - 20:,} more" if len(features) > 20 else ""
    return f"the columns are {', '.join(names)}{more}"


def described_type(kind: Any) -> str:
    """Return what a column holds, as a text for a message."""
    import datasets

    if isinstance(kind, datasets.ClassLabel):
        names = ", ".join(kind.names[:5]) + (", ..." if len(kind.names) > 5 else "")
        text = f"{kind.num_classes} classes: {names}"
    elif isinstance(kind, datasets.Value):
        text = kind.dtype.removeprefix("large_")
    elif isinstance(kind, datasets.Image):
        text = "images"
    elif isinstance(kind, datasets.Array2D | datasets.Array3D):
        text = f"{kind.dtype} of shape {' x '.join(str(size) for size in kind.shape)}"
    elif isinstance(kind, datasets.List | datasets.LargeList):
        text = f"lists of {described_type(kind.feature)}"
    elif isinstance(kind, dict):
        text = (
            "{" + ", ".join(f"{key}: {described_type(inner)}" for key, inner in kind.items()) + "}"
        )
    else:
        text = str(kind)
    return text if len(text) <= 100 else f"{text[:97]}..."
