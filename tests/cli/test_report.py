"""`vgx report`, and its page as a browser shows it."""

from __future__ import annotations

import json
import shutil

import pytest

import vgx

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run whose log has something hostile in it."""
    _, _, made = tiny_run
    found = vgx.Run(shutil.copytree(made, tmp_path_factory.mktemp("page") / made.name))
    lines = found.read_log()
    lines[6]["warnings"] = [HOSTILE]
    found.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found


@pytest.fixture(scope="module")
def page_file(tiny_run, run):
    program, _, _ = tiny_run
    program("report", run.path)  # with the cache of the run, which has its images
    return run.path / "report.html"


def test_a_finished_run_says_where_its_page_is(tiny_run):
    _, done, made = tiny_run
    assert f"Report {made / 'report.html'}" in done.stdout
    assert (made / "report.html").stat().st_size < 2**20


def test_the_page_goes_where_it_is_asked_to_go(run, vgx_here, tmp_path):
    before = run.path / "report.html"
    before.unlink(missing_ok=True)
    code, out, err = vgx_here("report", run.path, "--out", tmp_path / "new" / "page.html")
    assert (code, err) == (0, "")
    assert f"Report {tmp_path / 'new' / 'page.html'}" in out
    assert (tmp_path / "new" / "page.html").is_file()
    assert not before.exists()


def test_there_is_no_page_of_no_run(vgx_here):
    code, _, err = vgx_here("report", "nothing")
    assert code == 5
    assert "no run 'nothing'" in err


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def page(open_page, page_file):
    return open_page(page_file)


def frames(page):
    return page.evaluate("data.progress.frames")


def test_the_slider_moves_the_pictures(page):
    slider, image = page.locator("#step"), page.locator("#progress img").first
    shown = frames(page)
    assert [frame["step"] for frame in shown] == [1, 2, 5, 10, 20]
    assert image.get_attribute("src") == shown[-1]["samples"]["uri"]
    slider.focus()
    page.keyboard.press("Home")
    assert image.get_attribute("src") == shown[0]["samples"]["uri"]
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") == shown[1]["samples"]["uri"]
    assert image.get_attribute("alt") == "Sampler weighted-mix at step 2"
    assert slider.get_attribute("aria-valuetext") == "Step 2"
    for place, name in ((1, "prior"), (2, "recon")):
        beside = page.locator("#progress img").nth(place)
        assert beside.get_attribute("src") == shown[1][name]["uri"]
    # Played, it goes on from there to the end and stops.
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert image.get_attribute("src") == shown[-1]["samples"]["uri"]


def test_the_first_image_is_that_of_the_recipe_s_sampler(page):
    first = page.locator("img").first
    assert first.get_attribute("src") == page.evaluate("data.samples[0].image.uri")
    box, words = first.bounding_box(), page.locator(".summary").bounding_box()
    assert box["y"] + box["height"] < words["y"]
    assert box["width"] == 5 * 182  # each pixel a square
    verdict = page.locator(".summary b").last.inner_text()
    assert verdict.endswith("training image.") or "may be copies" in verdict


def test_pointing_at_a_chart_shows_the_values_of_that_step(page, run):
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    # Steps 1 to 20 lie between 52 pixels from the left and 8 from the right.
    across = 52 + (7 - 1) / (20 - 1) * (box["width"] - 60)
    page.mouse.move(box["x"] + across, box["y"] + 50)
    legend = page.locator("#curves .legend").first.inner_text()
    losses = run.read_log()[6]["losses"]
    assert legend.splitlines()[0] == "step 7"
    values = dict(zip(legend.split()[2::2], legend.split()[3::2], strict=True))
    assert list(values) == ["bce-adversarial.generator", "l1", "bce", "kl"]
    for name, value in values.items():
        assert float(value) == pytest.approx(losses[name], rel=1e-3)
    assert chart.locator(".cursor").get_attribute("d")
    page.mouse.move(5, 5)
    assert page.locator("#curves .legend").first.inner_text().startswith("step 20")


def test_curves_are_smoothed_and_drawn_on_a_logarithmic_axis(page):
    curve = page.locator("#curves .chart").first.locator(".curve").first
    plain = curve.get_attribute("d")
    page.locator("#log").check()
    logarithmic = curve.get_attribute("d")
    page.locator("#log").uncheck()
    assert curve.get_attribute("d") == plain != logarithmic
    page.locator("#smooth").focus()
    page.keyboard.press("End")
    assert curve.get_attribute("d") != plain
    assert page.locator("#curves .raw").count() > 0
    assert page.locator("#curves output").inner_text() == "0.98"


def test_what_is_hostile_is_only_read(page):
    assert page.locator(".alarm").inner_text() == f"Step 7: {HOSTILE}"
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [390, 768, 1100, 1900])
def test_no_page_is_wider_than_its_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is written in a chart keeps its size on a phone.
    assert page.evaluate("document.querySelector('.chart svg').getScreenCTM().a") == pytest.approx(
        1, abs=0.02
    )


def test_it_is_dark_for_those_who_want_it_and_light_on_paper(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) == "rgb(22, 24, 26)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(paper) == "rgb(252, 252, 251)"
    assert not page.locator("#step").is_visible()
    page.emulate_media(color_scheme="light", media="screen")
    assert not page.locator("#recipe pre").is_visible()
    page.pdf()  # on paper nothing can be opened any more, so it is open
    assert page.locator("#recipe pre").is_visible()


def test_the_recipe_can_be_copied(page, run):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#recipe summary").click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == run.recipe_file.read_text()


def test_the_experiment_s_drawing_is_seen(page):
    drawing = page.locator("#drawing img")
    drawing.scroll_into_view_if_needed()
    assert drawing.evaluate("image => image.naturalWidth") == 1100


def test_every_picture_and_control_has_a_name(page):
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for control in page.locator("input").all():
        assert control.evaluate("i => i.ariaLabel || i.labels.length")
    titles = [title.inner_text() for title in page.locator("h2").all()]
    assert titles == [link.inner_text() for link in page.locator("nav a").all()]
    assert "Is it copying?" in titles
