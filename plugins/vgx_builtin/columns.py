"""The column of images in a data set of the hub."""

from __future__ import annotations

from typing import Any

import vgx


def image_column(rows: Any, wanted: str | None, path: str) -> tuple[Any, str]:
    """Return the rows with only the column of images, still encoded, and its name."""
    import datasets

    features = rows.features
    where = f"dataset huggingface: {path}"
    names = [name for name, kind in features.items() if _is_image(kind)]
    if wanted is not None:
        if wanted not in features:
            raise vgx.DataError(f"{where}: no column '{wanted}'; it has {', '.join(features)}")
        if wanted not in names:
            raise vgx.DataError(f"{where}: column '{wanted}' holds {features[wanted]}, not images")
        names = [wanted]
    if not names:
        raise vgx.DataError(f"{where}: no column holds images; it has {', '.join(features)}")
    if len(names) > 1:
        several = ", ".join(names)
        raise vgx.DataError(f"{where}: several columns hold images: {several}; set dataset.column")
    rows = rows.select_columns(names)
    if isinstance(features[names[0]], datasets.Image):
        rows = rows.cast_column(names[0], datasets.Image(decode=False))
    return rows, names[0]


def _is_image(kind: Any) -> bool:
    import datasets

    bare = {"bytes", "path"}  # in a parquet file that the library did not write
    return isinstance(kind, datasets.Image) or (isinstance(kind, dict) and set(kind) == bare)
