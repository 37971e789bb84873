"""Labels in a file beside the images: CSV, TSV, JSON Lines, and the `dataset.json` of stylegan3."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

import vgx
from vgx_builtin.files.image_files import open_regular, whole
from vgx_builtin.files.image_places import Place
from vgx_builtin.labels.formats import dataset_json, json_lines, table
from vgx_builtin.labels.image_names import Names

MAX_BYTES = 2**26
"""Larger files of labels are not read."""
TRIED = 100
"""Rows by which the columns are recognised."""
UNKNOWN = object()


class Table(BaseModel):
    """A file with the labels of images."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    file: str
    """The file, relative to the images' folder: CSV, TSV or JSON Lines, or `dataset.json`."""
    picture: str | None = None
    """The column with the names of the images; not needed when its values show it."""
    label: str | None = None
    """The column with the labels; not needed when there is only one beside the names."""


def _written_short(value: object) -> object:
    if isinstance(value, str):
        return {"file": value}
    if isinstance(value, dict) and "type" in value:
        # A setting was laid over the short form, which a recipe takes for the type of a part.
        return {"file": value["type"], **{k: v for k, v in value.items() if k != "type"}}
    return value


LabelsField = Annotated[Table, BeforeValidator(_written_short, json_schema_input_type=Table | str)]


def reader_in(place: Place, where: str) -> Callable[[str, int], bytes]:
    """Return what reads files in a folder or archive, or elsewhere when their path is absolute."""

    def read(name: str, most: int) -> bytes:
        file = Path(os.path.expanduser(name))  # noqa: PTH111 - any user name may be there
        absolute = file.is_absolute()
        try:
            opened = open_regular(file, name) if absolute else place.reader([name])(name)
        except vgx.DataError as error:
            at = "" if absolute else "; the name is relative to dataset.path"
            raise vgx.DataError(f"{where}: labels: {error}{at}") from error
        with opened:
            return whole(opened, f"{where}: {name}", most)

    return read


def labels_in_file(
    chosen: Table, images: Sequence[str], read: Callable[[str, int], bytes], where: str
) -> list[object]:
    """Return the label of each image as it is written; None for an image that the file lacks.

    `read` returns a file of at most so many bytes. Rows that name no image are counted in a
    `vgx.Notice`. Raises `DataError` for a file that gives no labels, and `RecipeError` when the
    columns are not clear.
    """
    where = f"{where}: labels: {chosen.file}"
    names, labels = Names(images), [UNKNOWN] * len(images)
    count, missing, example = 0, 0, ""
    for place, written, label in _entries(chosen, read(chosen.file, MAX_BYTES), names, where):
        count += 1
        index = names.find(written)
        if index is None:
            missing, example = missing + 1, example or written
        elif index < 0:
            raise vgx.DataError(
                f"{where}: {place}: several images are called '{written[:100]}'; write their "
                "names with their folders"
            )
        elif labels[index] not in (UNKNOWN, label):
            two = f"'{str(labels[index])[:60]}' and '{str(label)[:60]}'"
            raise vgx.DataError(f"{where}: {place}: '{images[index]}' has two labels: {two}")
        else:
            labels[index] = label
    if missing == count:
        raise vgx.DataError(
            f"{where}: none of its {count:,} rows names an image; a row names '{example[:100]}', "
            f"an image is called '{images[0]}'"
        )
    if missing:
        text = f"{missing:,} of {count:,} rows name no image here, such as '{example[:100]}'"
        warnings.warn(f"{where}: {text}", vgx.Notice, stacklevel=2)
    return [None if label is UNKNOWN else label for label in labels]


def _entries(
    chosen: Table, data: bytes, names: Names, where: str
) -> Iterator[tuple[str, str, object]]:
    """Yield the place, the name and the label of each row."""
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if chosen.file.lower().endswith(".json") or start[:1] == b"[":
        yield from dataset_json(data, where)
        return
    rows = json_lines(data, where) if start[:1] == b"{" else table(data, names, where)
    first = [*islice(rows, TRIED)]
    if not first:
        raise vgx.DataError(f"{where}: there are no rows in it")
    picture, label = _columns(chosen, [row for _, row in first], names, where)
    for place, row in chain(first, rows):
        if not isinstance(written := row.get(picture), str):
            raise vgx.DataError(f"{where}: {place}: no name of an image in '{picture}'")
        yield place, written, row.get(label)


def _columns(
    chosen: Table, rows: list[Mapping[str, Any]], names: Names, where: str
) -> tuple[str, str]:
    """Return the columns of the names and of the labels.

    Raises `RecipeError`, which lists the columns, when they are not clear.
    """
    columns = list(rows[0])
    for field in ("picture", "label"):
        column = getattr(chosen, field)
        if column is not None and column not in columns:
            near = vgx.near(column, columns)
            hint = f"; did you mean '{near}'?" if near else ""
            raise vgx.RecipeError(f"{where}: no column '{column}'; {_listed(columns)}{hint}")
    picture = chosen.picture
    if picture is None:
        sure = {column: sum(names.sure(row.get(column)) for row in rows) for column in columns}
        picture = max(columns, key=lambda column: sure[column])
        if not sure[picture]:
            raise vgx.DataError(
                f"{where}: no column names images; {_listed(columns)}; its first row is "
                f"{str(list(rows[0].values()))[:200]}, an image is called '{names.names[0]}'"
            )
    others = [column for column in columns if column != picture]
    if chosen.label is None and len(others) != 1:
        advice = f"--set 'dataset.labels={{file: {chosen.file}, label: COLUMN}}'"
        raise vgx.RecipeError(f"{where}: which column has the labels? {_listed(columns)}; {advice}")
    return picture, chosen.label or others[0]


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return f"the columns are {', '.join(column[:60] for column in columns[:20])}{more}"
