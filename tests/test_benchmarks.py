"""The benchmarks work; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import vgx
from vgx_report.compare import RunData

ROOT = Path(__file__).parents[1]


@pytest.mark.chaos
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


def benchmark(name, monkeypatch):
    """Yield a benchmark as a module, which no other test finds."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module(name)
    for each in (name, "tables"):
        sys.modules.pop(each, None)


@pytest.fixture
def three_models(monkeypatch):
    yield from benchmark("three_models", monkeypatch)


@pytest.fixture
def streaming(monkeypatch):
    yield from benchmark("streaming", monkeypatch)


class Forked:
    """What the benchmark needs of `subprocess.Popen`, by a program that is forked."""

    def __init__(self, nursery, folder, command, stdout):
        self.child = nursery.start(folder, *command[3:])
        self.pid, self.code = self.child.pid, None
        self.send_signal = self.child.kill

    def poll(self):
        if self.code is None:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2]
            self.code = self.child.wait() if state.startswith("Z") else None
        return self.code

    def wait(self):
        self.code = self.child.wait() if self.code is None else self.code
        return self.code


def test_the_three_models_are_recipes_of_one_size(three_models):
    for data in ("drawn-faces", "anime-faces"):
        settings = [three_models.dataset(data, Path("faces")), *three_models.SHARED]
        recipes = [
            vgx.load_recipe(ROOT / "recipes" / f"{name}.yaml", [*settings, *more])
            for name, more in three_models.MODELS.items()
        ]
        assert {recipe.image.size for recipe in recipes} == {64}
        assert {recipe.latent.shape for recipe in recipes} == {(256,)}
        assert {recipe.dataset.type for recipe in recipes} <= {"drawn-faces", "huggingface"}


def test_the_three_models_page_keeps_what_is_written_by_hand(three_models, monkeypatch, tmp_path):
    monkeypatch.setattr(three_models, "PAGE", tmp_path / "page.md")
    hand = "# Title\n\n<!-- drawn-faces -->\n{}<!-- end -->\n\nSeen: a face.\n"
    three_models.PAGE.write_text(hand.format(""))
    figure = {"mean": 20.04, "spread": 0.5, "values": [20.0], "better": "higher"}
    part = {"pictures": 9, "split": "held out", "figures": {"psnr": figure}}
    said = {"format": 2, "data": {"content": ""}, "metrics": [], "features": []}
    said |= {"reconstruction": part}
    line = {"losses": {"l1": 0.5}, "seconds": 720.4, "step": 1500, "images": 96000}
    shown = [
        RunData(None, name, "stopped", {}, {}, {}, evaluated, [line])
        for name, evaluated in (("0001-vae", said), ("0002-gan", {}))
    ]
    table = (
        "|  | vae | gan |\n| --- | --- | --- |\n| seconds in training | 720 | 720 |\n"
        "| steps | 1,500 | 1,500 |\n| images seen | 96,000 | 96,000 |\n"
        "| reconstruction: psnr (more is better) | 20.04 ± 0.5 | - |\n"
    )
    for _ in range(2):
        three_models.write("drawn-faces", three_models.section(shown))
        assert three_models.PAGE.read_text() == hand.format(table)
    with pytest.raises(SystemExit, match="no place for anime-faces"):
        three_models.write("anime-faces", "")


@pytest.mark.slow
def test_the_time_of_a_list_is_measured():
    command = [sys.executable, ROOT / "benchmarks" / "listing.py"]
    command += ["--runs", "3", "--lines", "40", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 runs, 40 lines in each log" in done.stdout
    assert len(re.findall(r"^\| `vgx .* \| \d+\.\d\d \[", done.stdout, re.MULTILINE)) == 3


@pytest.mark.slow
def test_a_stream_that_was_killed_ends_with_the_same_bits(
    streaming, nursery, tmp_path, monkeypatch, capsys
):
    """`--count 100000`, the default, is for people; here 640 images, and the room for 64."""
    monkeypatch.setenv("VGX_CACHE_MAX", "")  # which the benchmark sets
    processes = SimpleNamespace(Popen=partial(Forked, nursery, tmp_path), DEVNULL=None)
    monkeypatch.setattr(streaming, "subprocess", processes)
    words = ["--folder", str(tmp_path), "--count", "640", "--rows-per-group", "40"]
    monkeypatch.setattr(sys, "argv", ["streaming.py", *words, "--holdout", "0.1"])
    code, out = streaming.main(), capsys.readouterr().out
    assert code == 0, out
    assert re.search(r"Killed at step \d of 13; the last checkpoint was of \d", out)
    assert out.rstrip().endswith(": equal")
    assert len(re.findall(r"^\| (?:streamed|stored)", out, re.MULTILINE)) == 3


def test_the_table_of_stages_compares_equal_times(monkeypatch):
    """By hand: two repeats of six parts, of which the staged training has the last four."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    stages = importlib.import_module("stages")
    try:
        scratch = [[10.0, 11.0, 12.0, 13.0, 14.0, 15.0], [10.5, 11.5, 12.5, 13.5, 14.5, 15.5]]
        staged = [[11.5, 13.0, 14.25, 15.5], [12.0, 13.5, 14.75, 16.0]]
        results = [list(pair) for pair in zip(scratch, staged, strict=True)]
        rows = stages.text_of(results, 180, 0.2, 0.25).splitlines()[2:8]
        assert rows[1] == "| 60 | 11.00 11.50 | (48 pixels) |  |"
        assert rows[2] == "| 90 | 12.00 12.50 | 11.50 12.00 | -0.50 -0.50 |"
        assert rows[5] == "| 180 | 15.00 15.50 | 15.50 16.00 | +0.50 +0.50 |"
        for size in (48, 96):
            assert stages.recipe_of(size, None).image.size == size
    finally:
        for name in ("stages", "tables"):
            sys.modules.pop(name, None)
