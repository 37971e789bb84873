"""Figures: what is drawn comes from the runs' files, and the files are fit for print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from PIL import Image

import vgx
from vgx.cli import run_program
from vgx_figures import plot

RECIPE = """\
name: NAME
losses:
- {type: l1, weight: WEIGHT}
train: {steps: 30, seed: SEED}
"""
KINDS = ["pdf", "svg", "png"]


@pytest.fixture
def make(tmp_path):
    """Make a run of the files that figures read, with one loss: its values at steps 10, 20, ..."""

    def make(number, values, seed=0, name="small", weight=1, loss="l1", metrics=()):
        run = tmp_path / "runs" / f"{number:04}-{name}"
        run.mkdir(parents=True)
        text = RECIPE.replace("NAME", name).replace("WEIGHT", str(weight))
        (run / "recipe.yaml").write_text(text.replace("SEED", str(seed)))
        lines = [
            {"step": 10 * (i + 1), "images": 80 * (i + 1), "seconds": 2.5 * (i + 1) + seed,
             "losses": {loss: value}}
            for i, value in enumerate(values)
        ]  # fmt: skip
        for line, value in zip(lines, metrics, strict=False):
            line["metrics"] = {"psnr": value}
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return vgx.Run(run)

    return make


@pytest.fixture
def seeds(make):
    return [make(1, [1, 2, 4], 0), make(2, [3, 2, 8], 1)]


def lines(panel):
    return [line.get_xydata().tolist() for line in panel.lines]


def band(panel):
    """The lower and the upper ends of a band at each position."""
    (shape,) = [each for each in panel.collections if isinstance(each, PolyCollection)]
    places = {}
    for x, y in shape.get_paths()[0].vertices:
        places.setdefault(x, []).append(y)
    return {x: (min(values), max(values)) for x, values in places.items()}


# --- curves ------------------------------------------------------------------------------------


def test_runs_of_one_recipe_are_a_mean_with_a_band(seeds):
    made = plot(seeds)
    (panel,) = made.figure.axes
    assert lines(panel) == [[[10, 2], [20, 2], [30, 6]]]
    one, three = 2**0.5, 8**0.5  # the standard deviations of (1, 3) and of (4, 8)
    wanted = {10: (2 - one, 2 + one), 20: (2, 2), 30: (6 - three, 6 + three)}
    assert band(panel) == {x: pytest.approx(ends) for x, ends in wanted.items()}
    assert panel.get_title(loc="left") == "l1"
    assert "small, 2 seeds (0001-small, 0002-small)" in made.caption
    assert made.figure.legends == []


def test_a_run_that_ended_early_counts_where_all_have_values(make):
    early = [make(1, [1, 2, 4], 0), make(2, [3], 1)]
    assert lines(plot(early).figure.axes[0]) == [[[10, 2]]]


def test_other_recipes_are_other_lines_with_names(make, seeds):
    other = make(3, [5, 5, 5], weight=2)
    (panel,) = plot([*seeds, other]).figure.axes
    assert lines(panel) == [[[10, 2], [20, 2], [30, 6]], [[10, 5], [20, 5], [30, 5]]]
    figure = plot([*seeds, other]).figure
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["small (1, 2), 2 seeds", "small (3)"]
    figure = plot([*seeds, other], labels=["ours", "theirs"]).figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "theirs"]
    with pytest.raises(vgx.RecipeError, match="labels: 1 for 2 groups"):
        plot([*seeds, other], labels=["ours"])


def test_smoothing_is_a_mean_of_the_past_before_the_values(make):
    (panel,) = plot(make(1, [1, 0, 0]), smooth=0.5).figure.axes
    raw, smooth = lines(panel)
    assert raw == [[10, 1], [20, 0], [30, 0]]
    # Weights 1/2 and 1/4 of 0 and 1, then 1/2, 1/4 and 1/8, each over their sum.
    assert smooth == [[10, 1], [20, pytest.approx(1 / 3)], [30, pytest.approx(1 / 7)]]


def test_other_axes_and_metrics(make):
    run = make(1, [1, 2, 4], metrics=[20, 21])
    l1, psnr = plot(run, by="seconds", log=True).figure.axes
    assert lines(l1) == [[[2.5, 1], [5, 2], [7.5, 4]]]
    assert lines(psnr) == [[[2.5, 20], [5, 21]]]
    assert l1.get_yscale() == "log"
    (only,) = plot(run, terms=["psnr"], by="images").figure.axes
    assert lines(only) == [[[80, 20], [160, 21]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "pie"}, "no figure 'pie'; write one of curves"),
        ({"terms": ["l2"]}, "terms: 'l2' was not logged; the runs have 'l1'"),
        ({"smooth": 1}, "smooth: 1: write a number"),
        ({"by": "hours"}, "by: 'hours': write step, images, seconds"),
        ({"colour": "red"}, "the figure curves has no option 'colour'; it has terms, smooth"),
        ({"width": "85"}, None),
        ({"width": "85m"}, "width: '85m': write 85mm"),
        ({"width": 1}, "from 30 to 600 mm"),
    ],
)
def test_what_cannot_be_drawn_is_said(seeds, options, message):
    if message is None:
        assert plot(seeds, **options).figure.get_size_inches()[0] == pytest.approx(85 / 25.4)
        return
    with pytest.raises(vgx.RecipeError, match=re.escape(message)):
        plot(seeds, **options)


def test_a_run_without_a_log_has_no_curves(make):
    with pytest.raises(vgx.StorageError, match="nothing was logged yet"):
        plot(make(1, []))


def test_a_log_from_a_stranger_is_text_and_numbers(make, tmp_path):
    hostile = "$\\frac{1}{0}$ <script>x</script> \x1b[2J" + "x" * 5000
    run = make(1, [1e308, -1e308, 0], loss=hostile, name="a_$b$^c")
    (panel,) = plot(run).figure.axes
    assert len(panel.get_title(loc="left")) < 200
    text = plot(run, labels=["$\\alpha$ & <b>"]).save(tmp_path / "x.svg").read_text()
    letters = "".join(ET.fromstring(text).itertext())
    assert "$\\frac{1}{0}$ <script>" in letters.replace("\n", "")
    assert "\x1b" not in letters


# --- files -------------------------------------------------------------------------------------


def test_a_page_has_the_width_and_its_fonts(seeds, tmp_path):
    data = plot(seeds, width="85mm").save(tmp_path / "x.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ ([\d. ]+) \]", data)
    left, bottom, right, _ = map(float, box.split())
    assert (left, bottom) == (0, 0)
    assert right == pytest.approx(85 / 25.4 * 72, abs=0.01)
    fonts = re.findall(rb"<< /Type /FontDescriptor.*?>>", data, re.DOTALL)
    assert fonts
    assert all(b"/FontFile2 " in font for font in fonts)  # TrueType, embedded
    assert not re.search(rb"/Subtype /Type3", data)
    assert b"/CreationDate" not in data


def test_an_svg_has_letters_and_its_width(seeds, tmp_path):
    root = ET.parse(plot(seeds, width="85mm").save(tmp_path / "x.svg")).getroot()
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(85 / 25.4 * 72)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"l1", "step"} <= set(texts)


def test_a_png_has_300_pixels_to_the_inch(seeds, tmp_path):
    with Image.open(plot(seeds, width="85mm").save(tmp_path / "x.png")) as image:
        assert image.width == int(85 / 25.4 * 300)
    shown = plot(seeds)._repr_png_()
    assert shown.startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_bytes_are_the_same_each_time(seeds, tmp_path):
    """In two processes with other hashes, and with the settings of a user who likes it large."""
    files = []
    for place in ("one", "two"):
        folder = tmp_path / place
        folder.mkdir()
        large = "font.size: 30\naxes.grid: True\nsvg.fonttype: path\npdf.compression: 0\n"
        (folder / "matplotlibrc").write_text("" if place == "one" else large)
        program = (
            "import vgx\n"
            "from vgx_figures import plot\n"
            f"made = plot([{', '.join(repr(str(run.path)) for run in seeds)}])\n"
            f"for kind in {KINDS}: made.save(f'x.{{kind}}')\n"
        )
        settings = {"PYTHONHASHSEED": "1" if place == "one" else "2", "SOURCE_DATE_EPOCH": ""}
        environment = {k: v for k, v in (os.environ | settings).items() if v}
        subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)
        files.append([(folder / f"x.{kind}").read_bytes() for kind in KINDS])
    assert files[0] == files[1]


def test_nothing_of_matplotlib_is_changed_for_others(seeds, tmp_path):
    before = dict(matplotlib.rcParams)
    plot(seeds).save(tmp_path / "x.svg")
    assert dict(matplotlib.rcParams) == before


def test_letters_that_the_font_lacks_are_told_once(make, seeds):
    made = plot([*seeds, make(3, [1], weight=2)], labels=["顔", "faces"])
    with pytest.warns(vgx.Notice, match="the font has no letters 顔") as told:
        made.encode(".pdf")
    assert len(told) == 1


# --- the command -------------------------------------------------------------------------------


def test_the_command_writes_a_figure(seeds, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        run_program(["figure", "1", "2", "--term", "l1", "--out", "a.svg", "--width", "9cm"]) == 0
    )
    out, err = capfd.readouterr()
    assert "Figure a.svg" in out
    assert err == ""
    root = ET.parse(tmp_path / "a.svg").getroot()
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(90 / 25.4 * 72)
    assert run_program(["figure", "1", "--out", "a.jpg"]) == 2
    assert "must end in .pdf, .svg or .png" in capfd.readouterr().err
    assert run_program(["figure", "9"]) == 5


def test_drawing_needs_neither_pyplot_nor_pytorch(seeds, tmp_path):
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        f"code = run_program(['figure', {str(seeds[0].path)!r}])\n"
        "sys.exit(str({'torch', 'matplotlib.pyplot'} & set(sys.modules)) if not code else 'failed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == "set()\n"
    assert np.isfinite(len((tmp_path / "figure.pdf").read_bytes()))
