"""The formats of a file of labels: tables, JSON Lines, and the `dataset.json` of stylegan3.

Each is read row by row: no file makes more of itself in memory than its own size.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import vgx
from vgx_builtin.labels.image_names import Names

MAX_ROWS = 2**21
"""Rows, or lines, that are read of a file."""
MAX_LINE = 2**20
"""Bytes of one line."""
MAX_LINES = 100
"""Lines of one row: texts in quotes may go over several."""
TRIED = 100
"""Rows by which the separator is recognised."""
SEPARATORS = ("\t", ",", ";", "|", " ")
# An entry of the list `labels` in dataset.json: a name, and a label of any kind.
ENTRY = re.compile(
    rb'\s*(\[\s*"(?:[^"\\]|\\.){0,4000}"\s*,\s*'
    rb'(?:null|true|false|-?[0-9.eE+-]{1,30}|"(?:[^"\\]|\\.){0,400}"|\[[^\]\[]{0,100000}\])'
    rb"\s*\])\s*(,|\])"
)


def _lines(data: bytes, where: str) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, or in UTF-16 as spreadsheets write it."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    file = io.TextIOWrapper(io.BytesIO(data), "utf-16" if wide else "utf-8-sig", newline="")
    number = 0
    try:
        while line := file.readline(MAX_LINE):
            number = _counted(number, where)
            if len(line) == MAX_LINE:
                raise vgx.DataError(f"{where}: a line of {MAX_LINE:,} characters or more")
            yield line
    except UnicodeError as error:
        raise vgx.DataError(f"{where}: its text is not UTF-8; save it as UTF-8") from error


def _counted(rows: int, where: str) -> int:
    """Return the number of rows with one more. Raises `DataError` for too many of them."""
    if rows == MAX_ROWS:
        raise vgx.DataError(f"{where}: more than {MAX_ROWS:,} rows; no more are read")
    return rows + 1


def json_lines(data: bytes, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a JSON Lines file, each with its place."""
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


def table(data: bytes, names: Names, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
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
        for row in reader:
            held = 0
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


def dataset_json(data: bytes, where: str) -> Iterator[tuple[str, str, object]]:
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
            name, label = json.loads(entry[1].decode())
        except ValueError as error:
            raise vgx.DataError(f"{where}: entry {number}: {str(error)[:100]}") from error
        yield f"entry {number}", name, label
        position, number, more = entry.end(), _counted(number, where), entry[2]
