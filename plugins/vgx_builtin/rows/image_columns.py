"""Which column of a data set in rows holds its images, and what to say if none does."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import vgx
from vgx_builtin.files.formats import endings
from vgx_builtin.rows.column_types import described_type, feature_at, is_text, listed, rank
from vgx_builtin.rows.columns import Rows


def image_column(rows: Rows, wanted: str | None, where: str) -> str:
    """Return the column of images, or the part of one: `images.0`.

    Raises `DataError` when there is none, or when it is not clear which one.
    """
    if wanted is not None:
        found = feature_at(rows.features, wanted)
        if found is None:
            raise vgx.DataError(f"{where}: no column '{wanted}'; {listed(rows.features)}")
        if not (rank(found) or is_text(found)):
            inner = _parts(wanted, found)
            advice = f"; set dataset.column to one of {', '.join(inner[:10])}" if inner else ""
            raise vgx.DataError(
                f"{where}: column '{wanted}' holds {described_type(found)}, not images{advice}"
            )
        _expect_no_text_of_images(rows, wanted, where)
        return wanted
    ranks = {name: rank(kind) for name, kind in rows.features.items()}
    best = max(ranks.values(), default=0)
    names = [name for name, found in ranks.items() if found == best > 0]
    if not names:
        names = [name for name, kind in rows.features.items() for name in _parts(name, kind)]
        if not names and (names := _columns_of_paths(rows)) and len(names) == 1:
            return names[0]
        if not names:
            for name, kind in rows.features.items():
                if is_text(kind):
                    _expect_no_text_of_images(rows, name, where)
            raise vgx.DataError(f"{where}: no column holds images; {listed(rows.features)}")
        several = f"images lie in parts of columns: {', '.join(names[:10])}"
    elif len(names) == 1:
        return names[0]
    else:
        several = f"several columns hold images: {', '.join(names[:10])}"
    raise vgx.DataError(f"{where}: {several}; set dataset.column, such as {names[0]}")


def _parts(column: str, kind: Any, depth: int = 0) -> list[str]:
    """Return the parts of a column that hold images: fields of a struct, the items of a list."""
    import datasets

    inner: dict[str, Any] = {}
    if isinstance(kind, datasets.List | datasets.LargeList):
        inner = {"0": kind.feature}
    elif isinstance(kind, dict):
        inner = kind
    if depth == 4:
        return []
    names = []
    for key, feature in inner.items():
        name = f"{column}.{key}"
        names += [name] if rank(feature) > 1 else _parts(name, feature, depth + 1)
    return names


def _texts(rows: Rows, column: str) -> list[str]:
    """Return some texts of a column; an empty list for a column of something else."""
    if not is_text(feature_at(rows.features, column)) or column not in rows.features:
        return []
    values = islice(rows.values(column), 16)
    return [text for text in values if isinstance(text, str) and text]


def _columns_of_paths(rows: Rows) -> list[str]:
    """Return the columns of text that name files of images."""
    known = tuple(endings())
    texts = {name: _texts(rows, name) for name in rows.features}
    return [
        name
        for name, values in texts.items()
        if values and all(text.lower().endswith(known) and "://" not in text for text in values)
    ]


def _expect_no_text_of_images(rows: Rows, column: str, where: str) -> None:
    """Raise `DataError` for a column of addresses, or of images as text."""
    texts = _texts(rows, column)
    if texts and re.match(r"[a-z][a-z0-9+.-]*://", texts[0]):
        raise vgx.DataError(
            f"{where}: column '{column}' holds addresses of images ({texts[0][:60]}), and nothing "
            "is downloaded that a row names; download them into a folder, such as with the program "
            "img2dataset, and set dataset.path to it"
        )
    start = "data:image/", "iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk0"  # PNG, JPEG, WebP, ...
    if texts and len(texts[0]) > 60 and texts[0].startswith(start):
        raise vgx.DataError(
            f"{where}: column '{column}' holds images as text (base64), not as bytes; write them "
            "as bytes: rows.map(lambda row: {'image': {'bytes': base64.b64decode(row"
            f"['{column}'])}}}}).to_parquet('images.parquet')"
        )
