"""The benchmarks work; how fast anything is, no test says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_performance_tables_are_written(tmp_path):
    page = tmp_path / "performance.md"
    command = [sys.executable, ROOT / "benchmarks" / "performance.py", "--quick", "--out", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [
        "Training", "Tried", "Data", "Sampling", "Starting",
    ]  # fmt: skip
    rows = re.findall(r"^\| (?!---|batch|what|command|operations)(.*) \|$", text, re.MULTILINE)
    ranges = [re.findall(r"(\d+\.\d+) \[(\d+\.\d+)\.\.(\d+\.\d+)\]", row) for row in rows]
    assert sum(map(bool, ranges)) >= 24
    for figures in ranges:
        assert all(float(least) <= float(m) <= float(most) for m, least, most in figures)
    # Where a step spends its time is all of its time.
    shares = text.partition("| operations | share |")[2].partition("\n\n")[0]
    assert 96 <= sum(map(int, re.findall(r"(\d+) %", shares))) <= 104


@pytest.mark.slow
def test_the_gallery_page_is_what_its_files_say(tmp_path):
    """`--page` writes it anew from the pictures' files: nothing on it was written by hand."""
    page = (ROOT / "docs" / "gallery.md").read_text()
    program = (
        "import sys, gallery\n"
        "from pathlib import Path\n"
        f"gallery.PAGE = Path({str(tmp_path / 'gallery.md')!r})\n"
        f"gallery.PAGE.write_text(Path({str(ROOT / 'docs' / 'gallery.md')!r}).read_text())\n"
        "sys.argv = ['gallery', '--page']\n"
        "gallery.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gallery.md").read_text() == page
    names = re.findall(r"^## \[`(\w+)`\]", page, re.MULTILINE)
    assert names == [name for name in names if (ROOT / "docs" / "gallery" / f"{name}.png").exists()]
