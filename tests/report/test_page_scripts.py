"""The scripts of the pages, in Node.js where it is installed, with elements that do nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import vgx_report

PAGE = Path(vgx_report.__file__).parent / "page"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
ELEMENTS = """
const made = [], given = [];
let h = (tag, attributes) => {
  given.push({ tag, ...attributes });
  const element = { tag, children: [], clientWidth: 400, setAttribute() {}, addEventListener() {},
    replaceChildren(...given) { this.children = given; } };
  made.push(tag);
  return element;
};
const s = h;
const count = String, format = String;
const downloads = () => null;
let drawing = null;
const responsive = (kind, draw) => { drawing = draw; return plot = h("div"); };
let plot = null;
const SETTINGS = { log: false, smoothing: 0, axis: "step" };
"""


def answer(script, *names):
    """What a program prints that has these scripts of the page, as data."""
    scripts = [(PAGE / name).read_text(encoding="utf-8") for name in names]
    program = "\n".join([ELEMENTS, *scripts, f"console.log(JSON.stringify({script}))"])
    done = subprocess.run(
        ["node", "-"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_ticks_of_any_range_are_few():
    assert answer("[ticks(0, 10, 5), ticks(-0.3, 0.3, 3)]", "charts.js") == [
        [0, 2, 4, 6, 8, 10], [-0.2, 0, 0.2],
    ]  # fmt: skip
    ranges = "[[1e6, 1e6 + 1e-10], [5, 5], [-1e308, 1e308], [0, 5e-324], [NaN, 1]]"
    counts = answer(f"{ranges}.map(([a, b]) => ticks(a, b, 6).length)", "charts.js")
    assert max(counts) <= 13


def test_a_key_that_is_held_down_stops_zooming():
    script = """(() => {
      const axes = { step: [0, 1000], images: [0, 1000], seconds: [0, 1000] };
      const line = { key: "a", name: "a", colour: 0, values: [1, 2], axes };
      const api = chart("a", "", [line], SETTINGS, () => {});
      charts = [api];
      api.draw();
      const ranges = [];
      for (let i = 0; i < 200; i++) {
        plot.onkeydown({ key: "+", preventDefault() {} });
        ranges.push(zoomed.get("a").end - zoomed.get("a").first);
      }
      return [ranges[0], ranges.at(-1)];
    })()"""
    first, last = answer(script, "charts.js")
    assert first == 500
    assert 1e-3 <= last < 2e-3  # a millionth of the whole


def test_the_branch_of_a_parent_is_dotted_and_a_line_marks_the_fork():
    script = """(() => {
      const places = [0, 100, 400];
      const line = { key: "a", name: "a", colour: 0, values: [1, 2, 3],
        axes: { step: places, images: places, seconds: places } };
      const branch = { ...line, key: "b", branch: true };
      const mark = { step: 100, images: 100, seconds: 100, text: "fork" };
      const api = chart("a", "", [line, branch], SETTINGS, () => {}, mark);
      charts = [api];
      api.draw();
      const [fork, ...more] = given.filter((each) => each.class === "fork");
      const lines = given.filter((each) => each.class === "curve" && each.d.includes("L"));
      const place = (path) => Number(path.split(/[ML]/)[2].split(" ")[0]);
      return [more.length, lines.map((each) => each["stroke-dasharray"] ?? null),
        Number(fork.d.slice(1).split(" ")[0]) - place(lines[0].d)];
    })()"""
    others, dashes, off = answer(script, "charts.js")
    assert (others, dashes[:2]) == (0, [None, "2 3"])
    assert abs(off) <= 0.1


def test_each_section_of_charts_has_its_own_controls():
    """Those of a run and those of its prior: a control changes the charts beside it alone."""
    script = """(() => {
      const axes = [{ step: [0, 9], images: [0, 90], seconds: [0, 1] }];
      const logs = { note: "", axes, groups: [
        { title: "Loss", unit: "", lines: [{ name: "a", colour: 0, axes: 0, values: [1, 2] }] }] };
      const heard = {};
      const plain = h;
      h = (tag, attributes, ...children) => {
        const element = plain(tag, attributes, ...children);
        element.addEventListener = (kind, hear) => { heard[attributes.id] = hear; };
        return element;
      };
      for (const name of ["curves", "prior"]) curves(name, logs, ["step", "images"]);
      const ids = given.map((each) => each.id).filter((id) => id);
      heard["curves-by-images"]();
      const radios = given.filter((each) => each.type === "radio").map((each) => each.name);
      return [ids, new Set(ids).size, choices.curves.axis, choices.prior.axis, radios,
        given.filter((each) => each.tag === "svg" && each["aria-label"]).map((each) =>
          each["aria-label"])];
    })()"""
    ids, different, of_curves, of_prior, radios, drawn = answer(script, "charts.js")
    assert len(ids) == different
    assert (of_curves, of_prior) == ("images", "step")
    assert radios == ["curves-axis"] * 2 + ["prior-axis"] * 2
    assert drawn == ["Loss: a by images seen"]  # nothing was drawn before, and only this one since


@pytest.mark.parametrize(("dimensions", "drawn"), [(3, 3), (300_000, 2000)])
def test_at_most_2000_bars_are_drawn(dimensions, drawn):
    source = (PAGE / "report.js").read_text(encoding="utf-8")
    bars = "function bars(" + source.partition("function bars(")[2].partition("\n}\n")[0] + "\n}\n"
    script = f"""(() => {{
      const kl = Array.from({{ length: {dimensions} }}, (_, i) => {dimensions} - i);
      bars({{ kl, order: kl, active: kl, note: "" }});
      drawing(h("div"), 600);
      return made.filter((tag) => tag === "rect").length;
    }})()"""
    assert answer(f"(() => {{ {bars} return {script} }})()", "charts.js") == drawn


def test_only_what_went_wrong_stands_in_the_colour_of_an_alarm():
    source = (PAGE / "report.js").read_text(encoding="utf-8")
    notes = (
        "function notes(" + source.partition("function notes(")[2].partition("\n}\n")[0] + "\n}\n"
    )
    script = """(() => {
      const h = (tag, { class: kind }, ...children) =>
        (kind ? [kind, ...children.flat()] : children.flat().join(""));
      const texts = [[0, "the fallback"], [1200, "collapsed"], [null, "left out: x"]];
      return [[], texts].map((some) => notes(some.map(([step, text]) => ({ step, text }))));
    })()"""
    script = script.replace("(() => {", "(() => {" + notes, 1)
    assert answer(script) == [
        [None, None],
        [["alarm", "Step 1200: collapsed", "left out: x"], ["notice", "Notice: the fallback"]],
    ]
