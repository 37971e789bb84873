"""Images in row groups of parquet files, which are streamed instead of stored."""

from __future__ import annotations

import hashlib

import vgx
from vgx_builtin.files.image_files import NonRgb
from vgx_builtin.labels.sources import column_of_labels
from vgx_builtin.rows.column_types import feature_at, rank
from vgx_builtin.rows.columns import Rows
from vgx_builtin.rows.layout import cut
from vgx_builtin.rows.parquet import ParquetRows
from vgx_builtin.rows.row_groups import GroupRows, footers
from vgx_builtin.rows.stream_sources import LabelledStream, StreamedRows


def open_stream(
    rows: Rows,
    where: str,
    column: str,
    label: str | None,
    image: vgx.ImageSpec,
    non_rgb: NonRgb,
    limit: int | None = None,
    revision: str = "",
) -> vgx.Grouped:
    """Return the images of a column in row groups, with their labels if `label` is a column.

    Raises `DataError` for other rows than those of parquet files.
    """
    if not isinstance(rows, ParquetRows):
        text = "only parquet files can be streamed; vgx pack PLACE OUT writes them"
        raise vgx.DataError(f"{where}: stream: {text}")
    if rank(feature_at(rows.features, column)) == 1:
        text = f"column '{column}' holds numbers; vgx pack PLACE OUT writes them as image files"
        raise vgx.DataError(f"{where}: stream: {text}")
    pieces = cut(rows.parts, 0, limit or len(rows))
    groups = [GroupRows(piece, rows.features) for piece in pieces]
    whole = column if column in rows.features else column.partition(".")[0]
    for group in groups:
        group.require_small(whole)
    largest = max(group.size(whole) for group in groups)
    words = f"{footers(rows)}|{column}|{non_rgb}|{limit}"
    name = f"rows-{hashlib.sha256(words.encode()).hexdigest()[:32]}"
    if label is None:
        return StreamedRows(groups, column, non_rgb, image.channels, name, revision, largest)
    if limit is not None:
        text = "stream: dataset.limit takes the first rows, and not as many of each class"
        raise vgx.RecipeError(f"{where}: {text}; take a slice: dataset.split=train[:{limit}]")
    labels = column_of_labels(rows, label, where, image)
    name += f"-label-{label}-{labels.fingerprint()}"
    return LabelledStream(groups, column, non_rgb, image.channels, name, revision, largest, labels)
