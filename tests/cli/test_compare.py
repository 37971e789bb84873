"""`vgx compare`, and its page as a browser shows it."""

from __future__ import annotations

import json
import shutil

import pytest

import vgx

HOSTILE = "</script><script>window.hacked = 1</script>"


def figure(mean, spread, better):
    return {"mean": mean, "spread": spread, "values": [mean] * 3, "better": better}


def evaluated(psnr, fid):
    generation = {"sampler": {"type": "prior"}, "pictures": 9, "real": 9, "split": "trained on"}
    return {
        "format": 2,
        "step": 20,
        "seeds": [0, 1, 2],
        "data": {"content": "x"},
        "metrics": [],
        "features": [],
        "reconstruction": {
            "pictures": 9,
            "split": "held out",
            "figures": {"psnr": figure(psnr, 0.0, "higher")},
        },
        "generation": [generation | {"figures": {"fid": figure(fid, 2.0, "lower")}}],
        "latent": None,
    }


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """Two copies of the tiny run; the second has another weight, is slower and better."""
    _, _, made = tiny_run
    folder = tmp_path_factory.mktemp("runs")
    one, two = (vgx.Run(shutil.copytree(made, folder / n)) for n in ("0001-one", "0002-two"))
    two.recipe_file.write_text(two.recipe_file.read_text().replace("weight: 100.0", "weight: 7.0"))
    for run, pace in ((one, 30), (two, 60)):
        lines = [line | {"seconds": pace * line["step"]} for line in run.read_log()]
        run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines[-1]["losses"][HOSTILE] = 1.0
    two.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one.path / "evaluation.json").write_text(json.dumps(evaluated(20.0, 50.0)))
    (two.path / "evaluation.json").write_text(json.dumps(evaluated(21.0, 49.0)))
    for name in ("step-00000020.png", "recon-00000020.png"):
        (two.samples / name).unlink()
    return one, two


def test_it_says_what_differs_and_what_is_better(runs, vgx_here, tmp_path):
    code, out, err = vgx_here("compare", *(run.path for run in runs))
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["losses.l1.weight", "100.0", "7.0"] in lines
    assert ["psnr", "(more", "is", "better)", "20", "21", "*"] in lines
    assert "fid (less is better)  50 ± 2    49 ± 2" in out
    assert list(tmp_path.glob("*.html")) == []


@pytest.mark.parametrize("names", [["one"], ["one", "1"]])
def test_one_run_is_not_compared(runs, vgx_here, monkeypatch, names):
    monkeypatch.setenv("VGX_RUNS", str(runs[0].path.parent))
    code, _, err = vgx_here("compare", *names)
    assert code == 2
    assert "two runs or more, each once" in err


def test_there_is_nothing_to_compare_with_no_run(runs, vgx_here):
    code, _, err = vgx_here("compare", runs[0].path, "nothing")
    assert code == 5
    assert "no run 'nothing'" in err


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def page(open_page, runs, vgx_here, tmp_path):
    file = tmp_path / "new" / "page.html"
    code, out, _ = vgx_here("compare", *(run.path for run in runs), "--out", file)
    assert code == 0
    assert f"Page {file}" in out
    return open_page(file)


def test_the_better_figure_is_marked_and_only_that(page):
    assert page.locator("#metrics .best").all_inner_texts() == ["best 21"]
    assert "0002-two in psnr" in page.locator(".summary").inner_text()
    row = page.locator("#differences tbody tr")
    assert row.all_inner_texts() == ["losses.l1.weight\t100.0\t7.0"]


def test_curves_are_laid_over_each_other_by_step_pictures_or_time(page, runs):
    chart = page.locator("#curves .chart").first
    legend = page.locator("#curves .legend").first
    name = page.locator("#curves h3").first.inner_text()
    logs = [run.read_log() for run in runs]

    def last_values():
        values = [item.inner_text() for item in legend.locator("b").all()]
        return [float(value) if value[-1].isdigit() else None for value in values]

    ends = [log[-1]["losses"][name] for log in logs]
    assert last_values() == pytest.approx(ends, rel=1e-3)
    by_step = chart.locator(".curve").nth(1).get_attribute("d")
    page.locator("#curves-by-images").check()
    assert legend.inner_text().startswith(f"{logs[0][-1]['images']} images")
    page.locator("#curves-by-seconds").check()
    assert chart.locator(".curve").nth(1).get_attribute("d") != by_step
    assert legend.inner_text().startswith("20 min")
    ticks = chart.locator(".tick").all_text_contents()
    assert ticks == ["10 min", "20 min"]
    # The second run took twice as long: where it is pointed at near its end, the first has ended.
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 50)
    first, second = last_values()
    assert first is None
    assert second == pytest.approx(ends[1], rel=1e-3)


def test_the_slider_shows_what_each_run_had_drawn_by_then(page):
    shown = page.evaluate("data.progress.runs")
    images = page.locator("#images img")
    # Two runs' samples, then their latents from N(0, I), then their reconstructions.
    assert images.count() == 6
    sources = [image.get_attribute("src") for image in images.all()]
    assert sources[0] == shown[0][-1]["samples"]["uri"]
    assert [frame["step"] for frame in shown[1]] == [1, 2, 5, 10]
    assert sources[1] == shown[1][-1]["samples"]["uri"]
    assert page.locator("#images figcaption").nth(1).inner_text() == "0002-two step 10"
    page.locator("#step").focus()
    page.keyboard.press("Home")
    assert images.first.get_attribute("src") == shown[0][0]["samples"]["uri"]
    assert images.nth(3).get_attribute("src") == shown[1][0]["prior"]["uri"]
    assert images.nth(5).get_attribute("src") == shown[1][0]["recon"]["uri"]
    assert images.nth(5).get_attribute("alt") == "Real above reconstruction, 0002-two, step 1"


@pytest.mark.parametrize("width", [390, 1100])
def test_no_page_is_wider_than_its_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_picture_and_control_has_a_name_and_nothing_is_run(page):
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for control in page.locator("input").all():
        assert control.evaluate("i => i.ariaLabel || i.labels.length")
    titles = [title.inner_text() for title in page.locator("h2").all()]
    assert titles == [link.inner_text() for link in page.locator("nav a").all()]
    assert page.evaluate("window.hacked") is None
