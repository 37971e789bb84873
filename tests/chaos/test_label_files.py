"""Files of labels made by strangers: bounded in time and memory, and refused with words."""

from __future__ import annotations

import math
import re

import pytest
from chaos.test_data_folders import MEBIBYTES, guarding
from pace import within
from PIL import Image

pytestmark = pytest.mark.chaos

SECONDS = 25  # two million rows take about ten when nothing else works
MOST = 2**26  # bytes that are read of such a file


def rows(row, file=MOST):
    return row * (file // len(row))


FILES = {
    "many rows": ("l.csv", lambda: rows(b"a,b\n"), "more than 2,097,152 rows"),
    "many empty lines": ("l.csv", lambda: rows(b"\n"), "more than 2,097,152 rows"),
    "many columns": ("l.csv", lambda: rows(b","), "a line of 1,048,576 characters or more"),
    "no line break": ("l.csv", lambda: rows(b"a"), "a line of 1,048,576 characters or more"),
    "an open quote": ("l.csv", lambda: b'x,"' + rows(b'","\n', MOST - 4), "a row of more than 100"),
    "many names": ("l.csv", lambda: b"".join(b"%07d,1\n" % n for n in range(7 * 10**6))[:MOST],
                   "no column names images"),
    "long names": ("l.csv", lambda: b"n,l\na.png,1\n" + (b"/" * 100_000 + b",1\n") * 600,
                   "several values|None"),
    "a zero byte": ("l.csv", lambda: b"a\0,b\n" * 9, "no column names images"),
    "wide text": ("l.csv", lambda: b"\xff\xfe" + rows("a,b\n".encode("utf-16-le"), MOST - 8),
                  "more than 2,097,152 rows"),
    "many objects": ("l.jsonl", lambda: rows(b'{"a":"a","b":1}\n'), "more than 2,097,152 rows"),
    "deep objects": ("l.jsonl", lambda: b'{"a":' + b"[" * 900_000 + b"\n", "not JSON"),
    "lists of lists": ("l.jsonl", lambda: b'{"a":"a","b":[' + b"[]," * 300_000 + b"[]]}\n",
                       "several values for one image"),
    "a long number": ("l.jsonl", lambda: b'{"f":"a","l":' + b"9" * 5000 + b"}\n", "not JSON"),
    "many entries": ("d.json", lambda: b'{"labels": [' + rows(b'["a",1],', MOST - 50) + b"]}",
                     "more than 2,097,152 rows"),
    "deep entries": ("d.json", lambda: b'{"labels": [' + rows(b"[", MOST - 50), "not of the form"),
    "a long label": ("d.json", lambda: b'{"labels": [["a",[' + rows(b"1,", MOST - 50) + b"1]]]}",
                     "not of the form"),
    "a long name": ("d.json", lambda: b'{"labels": [["' + rows(b"a", MOST - 50) + b'",1]]}',
                    "not of the form"),
    "many blanks": ("d.json", lambda: b'{"labels": [' + rows(b" ", MOST - 50), "not of the form"),
    "no labels": ("d.json", lambda: b'{"labels"' + rows(b" ", MOST - 50), "not .*labels"),
    "too large": ("l.csv", lambda: rows(b"a", MOST + 1), "more than 67,108,864 bytes"),
}  # fmt: skip


def test_no_file_of_labels_hangs_or_costs_much(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    Image.new("RGB", (8, 8)).save(theirs / "a.png")
    costs = {}
    with guarding(tmp_path) as guard:
        (theirs / "l.csv").write_text("a,1\n")
        assert guard("image-folder", theirs, labels={"file": "l.csv"}, classes=1)["kept"] == 1
        for case, (name, made, _) in FILES.items():
            (theirs / name).write_bytes(made())
            costs[case] = guard("image-folder", theirs, labels={"file": name}, classes=1)
            (theirs / name).unlink()
    wrong = {
        case: answer
        for case, answer in costs.items()
        if not within(answer.get("seconds", math.inf), SECONDS)
        or answer["mebibytes"] >= MEBIBYTES
        or not (answer.get("kept") or re.search(FILES[case][2], answer.get("error", "")))
    }
    assert wrong == {}
