"""`vgx report`, and its page as a browser shows it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import threading
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx_report.overview import Overview
from vgx_report.watch import Watched, server

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


def chart_of(page, title):
    figure = page.locator("#curves figure", has=page.get_by_role("heading", name=title, exact=True))
    figure.scroll_into_view_if_needed()
    return figure


def across(figure, place, first=1, last=20):
    """Where a step is on the screen: between 52 pixels from the left and 8 from the right."""
    box = figure.locator(".chart").bounding_box()
    x = box["x"] + 52 + (place - first) / (last - first) * (box["width"] - 60)
    return x, box["y"] + 60


ACCURACY = "Discriminator's accuracy"


def values_in(figure):
    legend = figure.locator(".legend").inner_text().split()
    return legend[:2], {legend[2]: legend[4], legend[5]: legend[7]}


def test_pointing_at_a_chart_shows_the_values_of_that_step(page, run):
    figure = chart_of(page, ACCURACY)
    page.mouse.move(*across(figure, 7))
    where, values = values_in(figure)
    assert where == ["step", "7"]
    for name, share in run.read_log()[6]["accuracy"].items():
        assert float(values[name]) == pytest.approx(share, rel=1e-3)
    assert figure.locator(".cursor").get_attribute("d")
    page.mouse.move(5, 5)
    assert values_in(figure)[0] == ["step", "20"]
    # The same with the keyboard.
    figure.locator(".chart").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert values_in(figure)[0] == ["step", "18"]


def test_a_chart_is_zoomed_by_dragging_and_whole_after_a_double_click(page):
    figure = chart_of(page, ACCURACY)
    ticks = figure.locator(".tick")
    whole, other = ticks.all_text_contents(), page.locator("#curves .chart svg").first.inner_html()
    assert whole == ["10", "20"]
    page.mouse.move(*across(figure, 5.9))
    page.mouse.down()
    page.mouse.move(*across(figure, 9))
    assert float(figure.locator(".marking").get_attribute("width")) > 50
    page.mouse.move(*across(figure, 10.1))
    page.mouse.up()
    assert ticks.all_text_contents() == ["6", "8", "10"]
    page.mouse.move(*across(figure, 7, 5.9, 10.1))
    assert values_in(figure)[0] == ["step", "7"]
    assert page.locator("#curves .chart svg").first.inner_html() == other  # one chart alone
    page.mouse.dblclick(*across(figure, 8, 5.9, 10.1))
    assert ticks.all_text_contents() == whole
    figure.locator(".chart").focus()
    page.keyboard.press("+")
    assert ticks.all_text_contents() != whole
    figure.get_by_role("button", name="Whole range").click()
    assert ticks.all_text_contents() == whole
    assert not figure.get_by_role("button", name="Whole range").is_visible()


def test_a_line_is_hidden_by_its_name_and_the_chart_fits_the_others(page, run):
    figure = chart_of(page, ACCURACY)
    assert figure.locator(".curve[clip-path], g .curve").count() == 2
    figure.get_by_role("button", name="real images").click()
    assert figure.locator("g .curve").count() == 1
    assert figure.locator("[aria-pressed=false]").count() == 1
    # The lowest and the highest of the fake images are now the lower and the upper edge.
    path = figure.locator("g .curve").get_attribute("d")
    heights = [float(point.split()[1]) for point in path[1:].split("L")]
    shares = [line["accuracy"]["fake"] for line in run.read_log()]
    assert heights.index(min(heights)) == shares.index(max(shares))
    assert min(heights) == 20
    figure.get_by_role("button", name="real images").click()
    assert figure.locator("g .curve").count() == 2


def test_curves_are_drawn_by_step_images_or_time(page, run):
    figure = chart_of(page, ACCURACY)
    last = run.read_log()[-1]
    assert figure.locator(".axis").all_text_contents() == [
        "share of logits on the right side", "step",
    ]  # fmt: skip
    page.locator("#curves-by-images").check()
    assert figure.locator(".legend").inner_text().startswith("160 images")
    assert figure.locator(".axis").last.text_content() == "images seen"
    page.locator("#curves-by-seconds").check()
    shown = figure.locator(".legend li").first.inner_text()
    assert float(shown.removesuffix(" s")) == pytest.approx(last["seconds"], rel=5e-3)
    assert figure.locator(".axis").last.text_content() == "time"


def saved(page, button):
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes().decode()


def test_each_chart_can_be_saved_as_svg_and_csv(page, run, tmp_path):
    figure = chart_of(page, ACCURACY)
    name, text = saved(page, figure.get_by_role("button", name="Save as CSV"))
    assert name == "tiny-Discriminator-s-accuracy.csv"
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["step", "images seen", "time in seconds", "real images", "fake images"]
    for row, line in zip(rows, run.read_log(), strict=True):
        wanted = [line["step"], line["images"], line["seconds"], *line["accuracy"].values()]
        assert [float(cell) for cell in row] == pytest.approx(wanted, rel=1e-5)
    page.emulate_media(color_scheme="dark")
    name, text = saved(page, figure.get_by_role("button", name="Save as SVG"))
    assert name.endswith(".svg")
    drawing = ElementTree.fromstring(text)
    space = {"svg": "http://www.w3.org/2000/svg"}
    texts = [each.text for each in drawing.iterfind(".//svg:text", space)]
    assert texts[0] == ACCURACY
    assert {"real images", "fake images", "step", "share of logits on the right side"} <= set(texts)
    # In the colours of paper, without anything that only the page knows.
    strokes = {each.get("stroke") for each in drawing.iterfind(".//svg:path", space)}
    assert {"#0a6375", "#b8540c"} <= strokes
    assert "var(" not in text
    (tmp_path / "chart.svg").write_text(text)
    seen = page.context.browser.new_page()
    seen.goto(f"file://{tmp_path / 'chart.svg'}")
    assert seen.evaluate("document.documentElement.getBBox().width") > 300
    seen.close()
    buttons = [page.get_by_role("button", name=f"Save as {kind}:") for kind in ("SVG", "CSV")]
    charts = page.locator(".chart").count() + 2  # the KL and the map have them too
    assert [each.count() for each in buttons] == [charts, charts]


def test_hostile_names_are_text_in_what_is_saved(page):
    page.evaluate("""(name) => {
        const line = { name, colour: 0, axes: 0, values: [1, 2] };
        const logs = { groups: [{ title: name, unit: name, lines: [line] }], note: "",
          axes: [{ step: [1, 2], images: [1, 2], seconds: [1, 2] }] };
        const made = curves("curves", logs, ["step"]).at(-1);
        document.querySelector("#curves .pile").replaceWith(made);
    }""", "=1+1</text>\ud800," + HOSTILE)  # fmt: skip
    page.wait_for_selector(".chart svg")
    _, table = saved(page, page.get_by_role("button", name="Save as CSV").first)
    header = next(csv.reader(io.StringIO(table)))
    assert header[3] == "'=1+1</text>\ufffd," + HOSTILE
    _, drawing = saved(page, page.get_by_role("button", name="Save as SVG").first)
    assert HOSTILE in "".join(ElementTree.fromstring(drawing).itertext())


def test_curves_are_smoothed_over_the_raw_ones_and_drawn_on_a_logarithmic_axis(page):
    figure = chart_of(page, ACCURACY)
    curve = figure.locator("g .curve").first
    plain = curve.get_attribute("d")
    page.locator("#curves-log").check()
    logarithmic = curve.get_attribute("d")
    page.locator("#curves-log").uncheck()
    assert curve.get_attribute("d") == plain != logarithmic
    page.locator("#curves-smooth").focus()
    page.keyboard.press("End")
    assert curve.get_attribute("d") != plain
    assert figure.locator(".raw").first.get_attribute("d") == plain
    assert page.locator("#curves output").inner_text() == "0.98"


def test_an_image_is_enlarged_by_a_whole_factor(page):
    images = page.locator(".zoom img")
    first = images.nth(0)
    first.click()
    dialog, alone = page.locator("dialog"), page.locator("dialog img")
    text = dialog.locator("output")
    dialog.locator("output", has_text="x. ").wait_for()
    assert alone.get_attribute("src") == first.get_attribute("src")
    # 182 x 74 pixels in a window of 1100: five fit.
    assert text.inner_text() == f"5x. {first.get_attribute('alt')}"
    size = "image => [image.clientWidth, image.clientHeight]"
    assert alone.evaluate(size) == [5 * 182, 5 * 74]
    assert alone.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    # A pixel of the image is a square of one colour.
    shot = Image.open(io.BytesIO(alone.screenshot())).convert("RGB")
    shown = np.asarray(shot).astype(int)[: 5 * 74, : 5 * 182].reshape(74, 5, 182, 5, 3)
    assert np.abs(shown - shown[:, 2:3, :, 2:3]).max() == 0
    page.keyboard.press("+")
    assert alone.evaluate(size) == [6 * 182, 6 * 74]
    page.keyboard.press("-")
    page.keyboard.press("ArrowRight")
    dialog.locator("output", has_not_text="Drawn").wait_for()
    assert alone.get_attribute("src") == images.nth(1).get_attribute("src")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert alone.get_attribute("src") == images.last.get_attribute("src")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    # Each image of the page can be enlarged, with the keyboard too, and loss is told.
    assert images.count() == page.locator("main img, header img").count()
    page.locator("#progress .zoom").nth(1).focus()
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    lossy = page.evaluate("data.progress.frames.at(-1).prior.loss") or ""
    dialog.locator("output", has_text="N(0").wait_for()
    assert ("compressed with loss" in text.inner_text()) == bool(lossy)


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


@contextlib.contextmanager
def live(browser, watched, width, height):
    """A page of the server of `vgx watch`, until this ends; it asks nobody else for anything."""
    serving, address = server(watched)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    page = browser.new_page(viewport={"width": width, "height": height})
    faults, requests = [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(address)
        yield page
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()
    page.locator(".live", has_text="Not connected").wait_for()
    page.close()
    assert [text for text in faults if "ERR_CONNECTION_REFUSED" not in text] == []
    assert [url for url in requests if not url.startswith(("data:", address))] == []


def test_a_live_page_has_the_newest_lines_and_keeps_what_was_chosen(browser, run, tmp_path):
    copy = vgx.Run(shutil.copytree(run.path, tmp_path / run.path.name))
    lines = copy.log_file.read_text().splitlines(keepends=True)
    copy.log_file.write_text("".join(lines[:10]))
    watched = Watched(copy, vgx.load_recipe(copy.recipe_file))
    with live(browser, watched, 1100, 900) as page:
        figure = chart_of(page, ACCURACY)
        assert values_in(figure)[0] == ["step", "10"]
        assert page.locator("#progress img").first.evaluate("i => i.decode().then(() => true)")
        page.locator("#curves-smooth").focus()
        page.keyboard.press("End")
        figure.locator(".entry", has_text="real images").click()
        page.locator("#recipe summary").click()
        page.evaluate("scrollTo(0, 700)")
        watched.rested = 0
        copy.log_file.write_text("".join(lines))
        figure.locator(".legend li", has_text="step 20").wait_for()
        assert page.evaluate("scrollY") == 700
        figure = page.locator("#curves figure", has_text=ACCURACY)
        assert values_in(figure)[0] == ["step", "20"]
        assert figure.locator("g .curve").count() == figure.locator(".raw").count() == 1
        assert page.locator("#curves-smooth").input_value() == "0.98"
        assert page.locator("#recipe pre").is_visible()
        assert "vgx report writes the page" in page.locator(".live").inner_text()


def test_every_picture_and_control_has_a_name(page):
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for control in page.locator("input").all():
        assert control.evaluate("i => i.ariaLabel || i.labels.length")
    titles = [title.inner_text() for title in page.locator("h2").all()]
    assert titles == [link.inner_text() for link in page.locator("nav a").all()]
    assert "Is it copying?" in titles


def test_a_live_list_of_runs_shows_news_and_leads_to_each_run(browser, run, tmp_path):
    lines = run.log_file.read_text().splitlines(keepends=True)
    name = "0002-<img src=x onerror=alert(1)>"
    for each in ("0001-tiny", name):
        shutil.copytree(run.path, tmp_path / each)
    (tmp_path / name / "log.jsonl").write_text("".join(lines[:10]))
    (tmp_path / name / "ended.json").unlink()
    overview = Overview(tmp_path)
    with live(browser, overview, 390, 844) as page:
        cards = page.locator(".run")
        assert cards.locator("h2").all_text_contents() == [name, "0001-tiny"]
        assert cards.locator(".state").all_text_contents() == ["killed", "done"]
        assert "step 10 of 20" in cards.first.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for image in cards.locator("img").all():
            assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 16
        page.select_option("#curve", "kl")
        kl = [json.loads(line)["losses"]["kl"] for line in lines if '"kl"' in line]
        text = cards.last.locator("figcaption").inner_text()
        assert [float(text.split()[i]) for i in (1, 3)] == pytest.approx([kl[0], kl[-1]], rel=1e-3)
        overview.rested = 0
        (tmp_path / name / "log.jsonl").write_text("".join(lines))
        cards.first.locator("p", has_text="step 20 of 20").wait_for()
        assert page.locator("#curve").input_value() == "kl"
        cards.first.locator("h2 a").click()
        page.locator(".kicker", has_text=name).wait_for()
        page.locator("header nav a").click()
        assert page.locator(".run").count() == 2
