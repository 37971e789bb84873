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
from matplotlib.collections import LineCollection, PolyCollection
from PIL import Image

import vgx
from vgx.cli import run_program
from vgx_figures import plot
from vgx_figures.groups import grouped, names_of_runs

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
    # Also where only some of the steps are drawn.
    long = [make(3, range(5000), 0, weight=2), make(4, range(3001), 1, weight=2)]
    (line,) = lines(plot(long).figure.axes[0])
    assert len(line) == 2000
    assert (line[0], line[-1]) == ([10, 0], [30010, 3000])


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


def test_a_name_with_a_comma_stays_whole(seeds):
    (both,) = grouped(seeds, ["beta 0.5, ours"])
    assert both.label == "beta 0.5, ours"
    named = [name for name, _ in names_of_runs([both])]
    assert named == ["beta 0.5, ours, seed 0", "beta 0.5, ours, seed 1"]
    assert [name for name, _ in names_of_runs(grouped(seeds))] == ["small, seed 0", "small, seed 1"]


def test_runs_that_are_no_further_seeds_are_drawn_apart(make, seeds):
    """Two of the same seed, and a fork whatever its seed; the others are one line."""
    third, same, fork = make(3, [1, 1, 1], 2), make(4, [1, 2, 4], 0), make(5, [9, 9, 9], 3)
    parent = {"run": "0001-small", "step": 10, "how": "fork"}
    (fork.path / "environment.json").write_text(json.dumps({"parent": parent}))
    labels = {group.label: len(group.runs) for group in grouped([*seeds, third, same, fork])}
    assert labels == {"small (1)": 1, "small (2, 3), 2 seeds": 2, "small (4)": 1, "small (5)": 1}
    (panel,) = plot([seeds[0], same]).figure.axes
    assert len(lines(panel)) == 2
    assert [*panel.collections] == []  # no band
    assert [group.label for group in grouped([fork])] == ["small"]


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
    assert (l1.get_yscale(), psnr.get_yscale()) == ("log", "log")
    zero = make(2, [0, 0], loss="never")
    assert plot(zero, log=True).figure.axes[0].get_yscale() == "linear"
    for terms in (["psnr"], "psnr"):
        (only,) = plot(run, terms=terms, by="images", labels="one").figure.axes
        assert lines(only) == [[[80, 20], [160, 21]]]


def test_what_else_was_logged_is_drawn_when_it_is_named(make):
    run = make(1, [1, 2], metrics=[30, 31])
    lines_ = [json.loads(text) for text in run.log_file.read_text().splitlines()]
    for line in lines_:
        line |= {"grad_norm": {"encoder": line["step"] / 10}, "images_per_second": 50.0}
        line["metrics"]["l1"] = 9.0
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines_))
    titles = [panel.get_title(loc="left") for panel in plot(run).figure.axes]
    assert titles == ["l1", "psnr", "metrics/l1"]
    names = ["grad_norm/encoder", "images_per_second", "metrics/l1"]
    drawn = [lines(panel) for panel in plot(run, terms=names).figure.axes]
    assert drawn == [[[[10, 1], [20, 2]]], [[[10, 50], [20, 50]]], [[[10, 9], [20, 9]]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "pie"}, "no figure 'pie'; write one of curves"),
        ({"terms": ["l2"]}, "terms: 'l2' was not logged; there are 'l1'"),
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
    named = plot([run, make(2, [1], weight=2)], labels=["$\\alpha$ & <b>\x1b[2J", "other"])
    letters = "".join(ET.parse(named.save(tmp_path / "x.svg")).getroot().itertext())
    assert "$\\alpha$ & <b>" in letters
    assert "$\\frac{1}{0}$ <script>" in letters.replace("\n", "")
    assert "\x1b" not in letters


# --- bars and gradients ------------------------------------------------------------------------


def evaluated(run, psnr, distances=None, images="same"):
    """Write an evaluation with a metric of reconstructions and one of two samplers."""
    part = {"pictures": 10, "split": "held out"}
    generation = [
        {**part, "real": 10, "sampler": {"type": sampler}, "figures": {"frechet-distance": {
            "mean": sum(values) / len(values), "values": values, "spread": 0.5, "better": "lower",
            "features": "random-conv"}}}
        for sampler, values in (distances or {}).items()
    ]  # fmt: skip
    figures = {"psnr": {"mean": psnr, "better": "higher", "features": None}}
    results = {
        "format": 2, "step": 30, "seeds": [0, 1, 2], "data": {"content": images}, "features": [],
        "metrics": [], "reconstruction": {**part, "figures": figures}, "generation": generation,
        "latent": None, "notices": [],
    }  # fmt: skip
    (run.path / "evaluation.json").write_text(json.dumps(results))
    return run


def bars(panel):
    return [bar.get_height() for bar in panel.patches]


def spreads(panel):
    """Half of each error bar."""
    lines = [each for each in panel.collections if isinstance(each, LineCollection)]
    return [(b[1] - a[1]) / 2 for each in lines for a, b in each.get_segments()]


def test_bars_are_means_with_the_spread_of_drawing_or_of_training(make, seeds):
    alone = evaluated(make(3, [1], weight=2), 20, {"prior": [1, 2, 3], "stored": [7, 7]})
    for run, psnr, distance in zip(seeds, (10, 14), (5, 6), strict=True):
        evaluated(run, psnr, {"prior": [distance, distance]})
    made = plot([*seeds, alone], "metrics", width=85)
    psnr, distance = made.figure.axes
    assert psnr.get_title(loc="left") == "psnr ↑"
    assert distance.get_title(loc="left").replace("\n", "") == "frechet-distance [random-conv] ↓"
    assert bars(psnr) == [12, 20]
    assert spreads(psnr) == [pytest.approx(8**0.5), 0]  # of 10 and 14; one training has none
    assert bars(distance) == [5.5, 2, 7]
    assert spreads(distance) == [pytest.approx(0.5**0.5), 0.5, 0.5]
    assert [text.get_text() for text in distance.get_xticklabels()] == ["prior", "stored"]
    assert "deviation over trainings with other seeds; of a single run" in made.caption
    (only,) = plot(alone, "metrics", terms=["psnr"]).figure.axes
    assert bars(only) == [20]


def test_a_run_without_any_of_the_bars_that_fit_has_none(make):
    many = evaluated(make(1, [1]), 10, {f"sampler-{i:02}": [i, i + 1] for i in range(12)})
    other = evaluated(make(2, [1], weight=2), 12, {"one more": [3, 4]})
    panel = plot([many, other], "metrics", terms=["frechet-distance [random-conv]"]).figure.axes[0]
    assert bars(panel) == [i + 0.5 for i in range(12)]


def test_bars_that_nobody_should_compare_are_named(make):
    one, two = evaluated(make(1, [1]), 10), evaluated(make(2, [1], weight=2), 12, images="other")
    with pytest.warns(vgx.Notice, match="not measured alike.*reconstruction: the images differ"):
        made = plot([one, two], "metrics")
    assert "do not compare their bars" in made.caption
    with pytest.raises(vgx.StorageError, match="was not evaluated yet: vgx eval"):
        plot(make(3, [1]), "metrics")
    (one.path / "evaluation.json").write_text(
        json.dumps({"step": 1, "generation": [{"figures": {}}]})
    )
    with pytest.raises(vgx.StorageError, match="evaluation.json: KeyError.*evaluate again"):
        plot(one, "metrics")


def test_gradients_are_those_of_the_audit(make, seeds):
    for run, norm in zip(seeds, (0.1, 0.3), strict=True):
        flows = [
            {"label": "l1", "norms": {"encoder": norm, "decoder": 2.0, "discriminator": None}},
            {"label": "gan.discriminator", "norms": {"encoder": None, "discriminator": 7.0}},
            {"label": "kl", "norms": {"encoder": 0.0}},  # has no place on this axis
        ]
        (run.path / "audit.json").write_text(json.dumps({"flows": flows}))
    (panel,) = plot(seeds, "gradients").figure.axes
    marks = [line.get_xydata().tolist() for line in panel.lines]
    assert marks == [[[pytest.approx(0.2), 0]], [[2, 0]], [[7, 1]]]
    ends = panel.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx([0.1, 0.3])
    assert [text.get_text() for text in panel.get_yticklabels()] == ["l1", "gan D", "kl"]
    assert panel.get_xscale() == "log"
    with pytest.raises(vgx.StorageError, match="has no audit"):
        plot(make(3, [1]), "gradients")


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


def test_a_path_may_begin_with_the_home_directory(seeds, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plot(seeds).save("~/x.svg") == tmp_path / "x.svg"
    assert (tmp_path / "x.svg").is_file()


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


@pytest.mark.slow
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
