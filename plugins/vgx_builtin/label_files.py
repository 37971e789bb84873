"""Labels in a file beside the images: CSV, TSV, JSON Lines, and the `dataset.json` of stylegan3."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

import vgx
from vgx_builtin.image_files import open_regular

MAX_BYTES = 2**26
"""Larger files of labels are not read."""
MAX_ROWS = 2**21
MAX_LINE = 2**20
"""Bytes of one line."""
MAX_LINES = 100
"""Lines of one row: texts in quotes may go over several."""
TRIED = 100
"""Rows by which the columns are recognised."""
SEPARATORS = ("\t", ",", ";", "|", " ")
ENDING = re.compile(r"\.\w{1,5}$")
UNKNOWN = object()
# An entry of the list `labels` in dataset.json: a name, and a label of any kind.
ENTRY = re.compile(
    rb'\s*\[\s*("(?:[^"\\]|\\.){0,4000}")\s*,\s*'
    rb'(null|true|false|-?[0-9.eE+-]{1,30}|"(?:[^"\\]|\\.){0,400}"|\[[^\]\[]{0,100000}\])\s*\]\s*(,|\])'
)


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


def reader_in(folder: Path, where: str) -> Callable[[str, int], bytes]:
    """Return what reads files in a folder, or elsewhere when their path is absolute."""

    def read(name: str, most: int) -> bytes:
        file = folder / Path(os.path.expanduser(name))  # noqa: PTH111 - any user name may be there
        with open_regular(file, f"{where}: {file}") as opened:
            data = opened.read(most + 1)
        if len(data) > most:
            raise vgx.DataError(f"{where}: {file}: more than {most:,} bytes; no more are read")
        return data

    return read


class Names:
    """The names of images, as a file of labels may write them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    @cached_property
    def whole(self) -> dict[str, int]:
        """The images by their names."""
        return {unicodedata.normalize("NFC", name): i for i, name in enumerate(self.names)}

    @cached_property
    def short(self) -> dict[str, int]:
        """The images by their names without endings, and without folders too; -1 for several."""
        short: dict[str, int] = {}
        for index, name in enumerate(self.names):
            for key in {_key(name), _key(name.rpartition("/")[2])}:
                short[key] = -1 if short.get(key, index) != index else index
        return short

    def find(self, written: str) -> int | None:
        """Return which image a name means; -1 for several, None for none.

        A name may have either slash, `./` before it, more folders before it, and no ending or
        another one.
        """
        name = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
        if (index := self.whole.get(name)) is not None:
            return index
        parts = [part for part in name.split("/") if part not in ("", ".")][-20:]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for known, made in ((self.whole, str), (self.short, str.casefold), (self.short, _key)):
            for tail in tails:
                if (index := known.get(made(tail))) is not None:
                    return index
        return None

    def sure(self, value: object) -> int:
        """Return whether a value is the name of an image: 2 as it stands, 1 otherwise, 0 if not."""
        if not isinstance(value, str) or self.find(value) is None:
            return 0
        return 2 if value in self.whole else 1


def _key(name: str) -> str:
    """Return a name without its ending, in small letters."""
    folder, slash, base = unicodedata.normalize("NFC", name).rpartition("/")
    return f"{folder}{slash}{ENDING.sub('', base) or base}".casefold()


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
        yield from _of_dataset_json(data, where)
        return
    rows = _of_json_lines(data, where) if start[:1] == b"{" else _of_table(data, names, where)
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


# --- formats -------------------------------------------------------------------------------------


def _lines(data: bytes, where: str) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, or in UTF-16 as spreadsheets write it."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    file = io.TextIOWrapper(io.BytesIO(data), "utf-16" if wide else "utf-8-sig", newline="")
    try:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise vgx.DataError(f"{where}: a line of {MAX_LINE:,} characters or more")
            yield line
    except UnicodeError as error:
        raise vgx.DataError(f"{where}: its text is not UTF-8; save it as UTF-8") from error


def _of_json_lines(data: bytes, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(data, where), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise vgx.DataError(f"{where}: line {number}: not JSON: {str(error)[:100]}") from error
        if not isinstance(row, dict):
            raise vgx.DataError(f"{where}: line {number}: no object such as {{...}}")
        yield f"line {number}", row


def _of_table(data: bytes, names: Names, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a CSV or TSV file; without a line of titles its columns are 1, 2, ..."""
    head = [*islice(_lines(data, where), TRIED)]
    separator = max(SEPARATORS, key=lambda separator: _fits(head, separator, names))
    titles: list[str] = []
    for number, row in _rows(_lines(data, where), separator, where):
        if not titles and any(map(names.sure, row)):
            titles = [str(n + 1) for n in range(len(row))]
        elif not titles:
            titles = [*map(str.strip, row)]
            continue
        if len(row) != len(titles):
            counts = f"columns: {len(row)} here, {len(titles)} in the first line"
            raise vgx.DataError(f"{where}: line {number}: {counts}")
        yield f"line {number}", dict(zip(titles, row, strict=True))


def _rows(lines: Iterator[str], separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, each with the number of its last line."""
    held = 0  # lines since the last row

    def counted() -> Iterator[str]:
        nonlocal held
        for line in lines:
            held += 1
            if held > MAX_LINES:
                long = f"a row of more than {MAX_LINES} lines"
                raise vgx.DataError(f"{where}: line {reader.line_num}: {long}; is a quote missing?")
            yield line

    reader = csv.reader(counted(), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for number, row in enumerate(reader):
            held = 0
            if number > MAX_ROWS:
                raise vgx.DataError(f"{where}: more than {MAX_ROWS:,} rows; no more are read")
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise vgx.DataError(f"{where}: line {reader.line_num}: {error}") from error


def _fits(lines: list[str], separator: str, names: Names) -> float:
    """Return in how many lines a separator leaves the name of an image beside something else.

    When it is in none, return how often it is in the first line, as a number below one.
    """
    rows = [line.rstrip("\r\n").split(separator) for line in lines]
    rows = [row for row in rows if len(row) > 1]
    fitting = sum(any(names.sure(cell.strip('" ')) for cell in row) for row in rows)
    return fitting or (lines[0].count(separator) / MAX_LINE if lines else 0)


def _of_dataset_json(data: bytes, where: str) -> Iterator[tuple[str, str, object]]:
    """Yield the entries of {"labels": [[name, label], ...]}."""
    begin = re.search(rb'"labels"\s*:\s*(null|\[\s*\]|\[)', data[:MAX_LINE])
    if begin is None:
        form = '{"labels": [["00000/img00000000.png", 6], ...]}'
        raise vgx.DataError(f"{where}: not {form}; other labels are read from CSV or JSON Lines")
    if begin[1] != b"[":
        raise vgx.DataError(f"{where}: it says that there are no labels ({begin[1].decode()})")
    position, number, more = begin.end(), 0, b","
    while more == b",":
        entry = ENTRY.match(data, position)
        if entry is None:
            raise vgx.DataError(f"{where}: entry {number}: not of the form [name, label]")
        try:
            yield f"entry {number}", json.loads(entry[1]), json.loads(entry[2])
        except ValueError as error:
            raise vgx.DataError(f"{where}: entry {number}: {str(error)[:100]}") from error
        position, number, more = entry.end(), number + 1, entry[3]
