"""The table of docs/reliability.md: what it counts, and that every bar is held by something."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pace
import pytest
from bars import BARS, BEGIN, END, EQUAL, PAGE, Table
from conftest import SLOW

TESTS = Path(__file__).parent
MARK = re.compile(r"""mark\.bar\(\s*"(\w+)"(?:,\s*control=|\s*\))""")


@pytest.fixture
def table(tmp_path):
    option = SimpleNamespace(
        markexpr="chaos", collectonly=False, keyword="", deselect=None, ignore=None
    )
    config = SimpleNamespace(option=option, args=["tests"], getini=lambda _: ["tests"])
    return Table(config)


def told(table, name, bar, control=None, outcome="passed", **properties):
    """Have a test of three phases reported, as pytest does it."""
    given = [("bar", (bar, control)), *properties.items()]
    for when in ("setup", "call", "teardown"):
        came = outcome if when == "call" else "passed"
        table.pytest_runtest_logreport(
            SimpleNamespace(
                user_properties=given, nodeid=name, duration=2.0, outcome=came,
                passed=came == "passed",
            )
        )  # fmt: skip


def cells(table, bar):
    line = next(line for line in table.text().splitlines() if line.startswith(f"| {bar} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][2:]


def test_cases_seconds_and_controls_are_those_of_the_tests(table):
    told(table, "a", "R1", cases=1200)
    told(table, "b", "R1")
    told(table, "c", "R1", "nobody listens", seen="0 of 8 saved")
    told(table, "d", "R2", cases=7)
    assert cells(table, "R1") == ["1,201", "0", "18", "nobody listens: 0 of 8 saved"]
    assert cells(table, "R2") == ["7", "0", "6", "none"]
    assert cells(table, "R3") == ["0", "0", "0", "none"]


def test_what_failed_stands_there_as_a_failure(table):
    told(table, "a", "R1", cases=50)
    told(table, "b", "R1", outcome="failed")
    told(table, "c", "R1", outcome="skipped")
    told(table, "d", "R1", "nobody listens", outcome="failed")
    assert cells(table, "R1") == ["51", "2 (1 skipped)", "24", "NOT NOTICED: nobody listens"]


def test_only_the_whole_tier_is_written_down(table):
    assert table.whole
    for name, value in {
        "markexpr": "", "keyword": "kill", "deselect": ["x"], "ignore": ["x"], "collectonly": True,
    }.items():  # fmt: skip
        option = SimpleNamespace(**{**vars(table.config.option), name: value})
        part = SimpleNamespace(option=option, args=["tests"], getini=lambda _: ["tests"])
        assert not Table(part).whole, name
    one = SimpleNamespace(**{**vars(table.config), "args": ["tests/chaos/test_kill.py"]})
    assert not Table(one).whole


@pytest.mark.parametrize(("page", "line"), [(PAGE, "| R1 |"), (EQUAL, "| `vae` | 2.0e-12 |")])
def test_each_page_has_a_place_for_its_table_and_keeps_the_rest(
    table, tmp_path, monkeypatch, page, line
):
    for each in (PAGE, EQUAL):
        (tmp_path / each.name).write_text(each.read_text())
    monkeypatch.setattr("bars.PAGE", tmp_path / PAGE.name)
    monkeypatch.setattr("bars.EQUAL", tmp_path / EQUAL.name)
    monkeypatch.delenv("VGX_RELIABILITY", raising=False)
    told(table, "a", "R1", cases=50)
    told(table, "b", "P4", equal=[["vae", 2, 2e-12]])
    for _ in range(2):
        table.pytest_sessionfinish(SimpleNamespace(shouldstop=False, shouldfail=False))
    text = (tmp_path / page.name).read_text()
    assert line in text
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    parts = [page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]]
    assert [text.split(BEGIN)[0], text.split(END)[1]] == parts
    table.pytest_sessionfinish(SimpleNamespace(shouldstop="stopped", shouldfail=False))
    assert (tmp_path / page.name).read_text() == text


def test_every_bar_is_held_and_has_a_control():
    held, broken = set(), set()
    for path in TESTS.rglob("test_*.py"):
        if path.name == "test_bars.py":
            continue
        for mark in MARK.finditer(path.read_text()):
            (broken if "control" in mark[0] else held).add(mark[1])
    assert held | broken <= set(BARS)
    assert set(BARS) - held == set()
    assert set(BARS) - broken == set()


def test_what_strangers_and_disks_do_has_cases_in_the_fast_tier():
    fast = set()
    for path in TESTS.rglob("test_*.py"):
        if path.stem in SLOW or path.parent.name in SLOW:
            continue
        text = path.read_text()
        if not MARK.search(text):
            continue
        for test in ast.parse(text).body:
            decorators = getattr(test, "decorator_list", [])
            marks = [ast.get_source_segment(text, each) for each in decorators]
            if not any("slow" in mark or "chaos" in mark for mark in marks):
                fast |= {MARK.search(mark)[1] for mark in marks if MARK.search(mark)}
    bars = {"R11", "S6", "S7", "S8", "S9", "S10", "S11", "D3", "D4", "L3", "X4", "Q3", "Q4"}
    assert bars - fast == set()


@pytest.mark.chaos
def test_two_processes_write_one_table(tmp_path):
    """Tests run in processes of their own, and the table is written by the one that waits."""
    target = tmp_path / "table.md"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "chaos", "-k", "flush"]
    done = subprocess.run(
        [*command, str(TESTS / "chaos" / "test_write_path.py")],
        env={**os.environ, "VGX_RELIABILITY": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in target.read_text().splitlines() if line.startswith("| R4 |")]
    n, failures, _, control = [cell.strip() for cell in line.strip("|").split("|")][2:]
    assert (n, failures) == ("2", "0")
    assert control == "without the flush of directories: 5 flushes, not 7"
    assert "minutes in 2 processes." in target.read_text()


def test_the_distances_of_recipes_are_a_table(table):
    told(table, "a", "P4", equal=[["vae", 2, 1.25e-13], ["vae", 4, 0.0], ["tiny", 2, 3e-14]])
    told(table, "b", "P4", equal=[["aae", 4, 2e-12]])
    assert table.distances().splitlines() == [
        "| recipe | 2 processes | 4 processes |",
        "|---|---|---|",
        "| `aae` | - | 2.0e-12 |",
        "| `tiny` | 3.0e-14 | - |",
        "| `vae` | 1.2e-13 | 0.0e+00 |",
    ]


@pytest.mark.parametrize(
    ("seconds", "slower", "held"),
    [(5.0, 1, True), (5.1, 1, False), (5.1, 0.5, False), (9.9, 2, True), (10.1, 2, False)],
)
def test_a_cost_above_its_bar_is_seen_at_every_pace(monkeypatch, seconds, slower, held):
    monkeypatch.setattr(pace, "ADDED", 1)
    clock = iter([7.0, 7.0 + slower * pace.REFERENCE])
    monkeypatch.setattr(pace.time, "process_time", lambda: next(clock))
    assert pace.within(seconds, 5) is held
