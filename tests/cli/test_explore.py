"""The page of `vgx explore` in a browser, opened from the disk: its pixels are PyTorch's."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx.console import Console
from vgx.data.decode import decode
from vgx.training import session as training
from vgx_explore import engine, explore, latents, precision, run_page

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
# The user's cache, before the tests get caches of their own: nothing is fetched for a test.
CACHED = vgx.cache_dir() / f"onnxruntime-web-{engine.RELEASE.version}"
RED, BLUE = "<img src=x onerror=document.title=1>", "blue & 'light' \"dark\""
LEVEL = 1 / 255

pytestmark = pytest.mark.slow


def folder_of_classes(folder):
    """Reddish and bluish images, in a folder for each class, whose names are hostile."""
    generator = np.random.default_rng(0)
    for name, channel in ((RED, 0), (BLUE, 2)):
        (folder / name).mkdir(parents=True)
        for i in range(32):
            pixels = generator.integers(0, 90, (16, 16, 3), np.uint8)
            pixels[4:12, 4:12, channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def trained(folder, **changes):
    data = folder_of_classes(folder / "data")
    settings = {
        "dataset": {"type": "image-folder", "path": str(data), "label": "folder"},
        "image.classes": 2, "augment": [], "train.steps": 40, "train.log_every": 40,
    }  # fmt: skip
    recipe = vgx.load_recipe(TINY, settings | changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        return training.run(recipe, folder / "runs", console=Console(file=io.StringIO()))


def with_page(run, networks=None, **options):
    """The run with its page; without the engine, all but what runs in a browser is there.

    With `networks`, these are in the page and none is written.
    """
    with pytest.MonkeyPatch.context() as patch:
        if networks:
            patch.setattr(run_page, "networks", lambda *_: networks)
        kept = engine.cached(CACHED) or engine.Engine(b"", b"")
        patch.setattr(engine, "load", lambda *_: kept)
        explore(run, **options)
    return run


@pytest.fixture(scope="module")
def vaegan(tmp_path_factory):
    return with_page(trained(tmp_path_factory.mktemp("vaegan")))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A GAN whose decoder takes labels: no encoder, and the prior as its sampler."""
    decoder = {"type": "labelled", "inner": {"type": "conv-transpose", "widths": [16, 8]}}
    losses = [{"type": "bce-adversarial"}]
    changes = {"decoder": decoder, "encoder": None, "losses": losses, "sampler": {"type": "prior"}}
    folder = tmp_path_factory.mktemp("labelled")
    run = trained(folder, **changes, **{"train.steps": 5})
    return with_page(run, out=folder / "labelled.html")


def inside(page):
    """What a page carries: its data, and its files by name."""
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text)[1])
    found = re.findall(r'type="application/octet-stream" id="(\w+)">([^<]*)</script>', text)
    return data, {name: gzip.decompress(base64.b64decode(content)) for name, content in found}


def rows_in(page):
    data, packed = inside(page)
    return torch.from_numpy(np.frombuffer(packed["latents"], "<f4").copy()).reshape(
        -1, *data["latent"]
    )


def nearest(z, codes):
    return torch.cdist(z, codes, compute_mode="donot_use_mm_for_euclid_dist").min()


# --- without a browser -------------------------------------------------------------------------


def test_the_page_has_what_the_run_draws_and_nothing_of_its_images(vaegan):
    data, packed = inside(vaegan.path / "explore.html")
    model, z = vgx.load(vaegan), rows_in(vaegan.path / "explore.html")
    assert data["faces"] == latents.SHOWN
    assert len(z) == data["faces"] + 1 + len(data["directions"])
    assert nearest(z[: data["faces"]], model.codes) > 1e-3
    assert data["directions"][0] in ({"left": RED, "right": BLUE}, {"left": BLUE, "right": RED})
    assert data["directions"][1] == {"left": "", "right": "direction 1"}
    texts = [(vaegan.path / "explore.html").read_bytes(), *packed.values()]
    assert not [text for text in texts if str(vaegan.path.parents[1]).encode() in text]
    # The networks inside, by another engine than that of the page.
    images = precision.run(precision.opened(packed["decoder"]), {"latents": z[:60].numpy()})
    assert np.abs(images - model.decode(z[:60]).numpy()).max() < LEVEL
    again = precision.run(precision.opened(packed["encoder"]), {"images": images})
    wanted = model.decode(model.encode(torch.from_numpy(images)))
    assert (model.decode(torch.from_numpy(again)) - wanted).abs().max() < LEVEL


def test_latents_of_training_images_are_shown_only_when_they_are_asked_for(vaegan, tmp_path):
    codes = vgx.load(vaegan).codes
    none = run_page.Network(b"", "float32", 0.0)
    with_page(vaegan, (none, none), out=tmp_path / "stored.html", stored=True)
    data, _ = inside(tmp_path / "stored.html")
    assert torch.equal(rows_in(tmp_path / "stored.html")[:60], codes[-60:])
    assert "stored latents of training images" in data["facts"][1]
    # A sampler that draws them as they are does not bring them to the page.
    copy = vgx.Run(shutil.copytree(vaegan.path, tmp_path / "0001-posterior"))
    text = copy.recipe_file.read_text()
    copy.recipe_file.write_text(
        re.sub(r"(?ms)^sampler:.*?(?=^\S)", "sampler: {type: posterior}\n", text)
    )
    with_page(copy, (none, none))
    data, _ = inside(copy.path / "explore.html")
    why = "(posterior draws latents of training images as they are, or nearly so)"
    assert f"weighted-mix {why}" in data["facts"][1]
    assert nearest(rows_in(copy.path / "explore.html")[:60], codes) > 1e-3


def test_the_command_says_what_it_made_and_what_it_lacks(vaegan, vgx_here, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = vgx_here("explore", vaegan.path)
    assert code == 8
    assert "npm pack onnxruntime-web@" in err
    code, _, err = vgx_here("explore", vaegan.path, "--out", "x.txt")
    assert code == 2
    assert "must end in .html or .htm" in err
    none = run_page.Network(b"", "float32", 0.0)
    monkeypatch.setattr(run_page, "networks", lambda *_: (none, none))
    monkeypatch.setattr(engine, "load", lambda archive: engine.Engine(b"", archive.read_bytes()))
    (tmp_path / "engine.tgz").write_bytes(b"given")
    options = ("--out", "x.html", "--stored", "--engine", "engine.tgz")
    code, out, _ = vgx_here("explore", vaegan.path, *options)
    assert code == 0
    assert "stored latents of training images, which are derived from these images" in out
    assert out.splitlines()[-1] == "Page x.html"
    assert inside(tmp_path / "x.html")[1]["wasm"] == b"given"


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def opened(browser):
    """Open pages from the disk; whatever one complains of, or asks a network for, is a fault."""
    if engine.cached(CACHED) is None:
        pytest.skip(f"onnxruntime-web is not in {CACHED}; `vgx explore RUN` fetches it once")
    contexts, faults, requests = [], [], []

    def open_file(file, **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{file}")
        page.wait_for_selector("#save-image:enabled", timeout=60_000)
        settled(page)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []


def settled(page):
    """Wait until the image is that of the newest mixture."""
    page.wait_for_selector("#image[data-shown]")
    page.wait_for_function("() => !wanted && !busy && !waiting.size", polling=50)
    assert page.get_attribute("#state", "class") is None  # no alarm


def canvas(page, selector):
    """[H, W, 4]  The pixels of a canvas, as a browser saves them."""
    uri = page.eval_on_selector(selector, "canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def assert_pixels(page, selector, wanted):
    """wanted: [C, H, W] in [0, 1]"""
    got = canvas(page, selector)[..., :3].transpose(2, 0, 1) / 255
    assert got.shape == wanted.shape
    assert np.abs(got - wanted.numpy()).max() <= LEVEL


def saved(page, button):
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def give(page, name, content):
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.set_input_files("#file", file)


def test_what_is_mixed_changed_and_saved_is_what_pytorch_decodes(vaegan, opened):
    page = opened(vaegan.path / "explore.html")
    model, z = vgx.load(vaegan), rows_in(vaegan.path / "explore.html")
    assert_pixels(page, "#image", model.decode(z[:3].mean(0, keepdim=True))[0])
    for k in range(3):
        assert_pixels(page, f".corner:nth-of-type({k + 2}) canvas", model.decode(z[k : k + 1])[0])
    # The point is dragged to the middle of the lower side: half of the second and of the third.
    box = page.locator("#triangle").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 236 / 260, steps=10)
    page.mouse.up()
    settled(page)
    name, text = saved(page, "#save-latent")
    kept = json.loads(text)
    assert name == "0001-tiny-1.json"
    assert kept["shape"] == [8]
    torch.testing.assert_close(torch.tensor(kept["latent"]), (z[1] + z[2]) / 2, atol=0.02, rtol=0)
    assert page.get_attribute("#knob", "aria-valuetext") == "0 %, 50 %, 50 %"
    # A slider of 2 standard deviations.
    page.locator("#sliders input").first.fill("2")
    settled(page)
    moved = torch.tensor(json.loads(saved(page, "#save-latent")[1])["latent"])
    torch.testing.assert_close(moved - torch.tensor(kept["latent"]), 2 * z[61])
    name, png = saved(page, "#save-image")
    assert name == "0001-tiny-2.png"
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).transpose(2, 0, 1) / 255
    assert np.abs(pixels - model.decode(moved[None])[0].numpy()).max() <= LEVEL
    # The names of classes are text.
    assert {RED, BLUE} == set(
        page.locator("#sliders label").first.locator("span > span").all_text_contents()
    )
    assert page.locator("main img").count() == 0
    # A saved latent comes back.
    page.click("#others")
    give(page, "x.json", text)
    settled(page)
    assert_pixels(page, "#image", model.decode(torch.tensor(kept["latent"])[None])[0])


class Photos:
    """A data set of one image."""

    def __init__(self, photo):
        self.photo = photo

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.photo.copy()


def test_a_photo_becomes_what_the_recipe_makes_of_it_and_is_reconstructed(vaegan, opened):
    page, model = opened(vaegan.path / "explore.html"), vgx.load(vaegan)
    generator = np.random.default_rng(1)
    photo = Image.fromarray(generator.integers(0, 256, (10, 13, 3), np.uint8)).resize((130, 100))
    photo.putalpha(Image.linear_gradient("L").resize((130, 100)))
    png = io.BytesIO()
    photo.save(png, "PNG")
    for fit in ("squash", "crop", "pad"):
        page.evaluate("fit => { data.image.fit = fit; }", fit)
        give(page, f"{fit}.png", png.getvalue())
        page.wait_for_selector(f"#photo figcaption:has-text('{fit}.png')")
        settled(page)
        recipe = vgx.load_recipe(vaegan.recipe_file, {"image.fit": fit})
        pixels = decode(Photos(photo), 0, recipe.image).pixels  # [H, W, C]
        got = canvas(page, "#photo-image")[..., :3]
        # A browser keeps transparent colours multiplied by their alpha, which costs a level or two.
        assert np.abs(got.astype(int) - pixels.astype(int)).max() <= 2
        image = torch.from_numpy(got.transpose(2, 0, 1).copy())[None] / 255
        assert_pixels(page, "#image", model.decode(model.encode(image))[0])
        assert page.get_attribute("#knob", "aria-valuetext") == "100 %, 0 %, 0 %"
    # Dropped near a corner, it takes the place of that one.
    content = base64.b64encode(png.getvalue()).decode()
    dropped = page.evaluate_handle(
        """content => {
          const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
          return transfer;
        }""",
        content,
    )
    box = page.locator("#triangle").bounding_box()
    place = {"clientX": box["x"] + 0.8 * box["width"], "clientY": box["y"] + 0.8 * box["height"]}
    page.dispatch_event("#triangle svg", "drop", {"dataTransfer": dropped, **place})
    page.wait_for_selector("#photo figcaption:has-text('dropped.png')")
    settled(page)
    assert page.get_attribute("#knob", "aria-valuetext") == "0 %, 0 %, 100 %"
    assert_pixels(page, "#image", model.decode(model.encode(image))[0])
    page.click("#others")
    assert page.locator("#photo").is_hidden()


def test_a_file_that_is_no_image_is_said_to_be_none(vaegan, opened):
    page = opened(vaegan.path / "explore.html")
    before = canvas(page, "#image")
    for name, content in (("<b>.png", b"no image"), ("x.json", b'{"latent": [1], "shape": [8]}')):
        give(page, name, content)
        page.wait_for_selector(f"#state:has-text('{name} cannot be used')")
    assert np.array_equal(canvas(page, "#image"), before)


def test_classes_are_chosen_and_mixtures_of_draws_keep_their_variance(labelled, opened):
    file = labelled.path.parents[1] / "labelled.html"
    page = opened(file)
    model, z = vgx.load(labelled), rows_in(file)
    mean = z[60]
    mixed = mean + (z[:3].mean(0) - mean) * 3**0.5  # weights of 1/3 have the norm 1/sqrt(3)
    assert page.locator("#class option").all_text_contents() == sorted([RED, BLUE])
    for label in (0, 1):
        page.select_option("#class select", str(label))
        settled(page)
        assert_pixels(page, "#image", model.decode(mixed[None], torch.tensor([label]))[0])
    give(page, "p.png", b"x")
    page.wait_for_selector("#state:has-text('this model has no encoder')")


def test_a_hand_that_is_faster_than_the_model_does_no_harm(labelled, opened):
    page = opened(labelled.path.parents[1] / "labelled.html")
    # As before the start, when there are no corners yet.
    page.evaluate("() => { globalThis.kept = state.corners; state.corners = []; }")
    page.locator("#sliders input").first.fill("2")
    page.locator(".corner .other").first.click()
    page.locator(".corner .face").first.click()
    page.select_option("#class select", "1")
    assert page.evaluate("[wanted, busy]") == [False, False]
    assert page.get_attribute("#state", "class") is None
    page.evaluate("() => { failed('once'); state.corners = kept; change(); }")
    page.wait_for_selector("#state:has-text('ms an image')")
    settled(page)  # the alarm is over


def test_it_works_under_a_finger_on_a_phone_and_in_the_dark(vaegan, opened):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = opened(vaegan.path / "explore.html", **phone, color_scheme="light")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"
    assert int(page.evaluate(background)) > 200
    page.emulate_media(color_scheme="dark")
    assert int(page.evaluate(background)) < 50
    box = page.locator("#triangle").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] * 236 / 260)
    settled(page)
    assert page.get_attribute("#knob", "aria-valuetext") == "0 %, 50 %, 50 %"
    page.focus("#knob")
    for _ in range(40):
        page.keyboard.press("ArrowUp")
    settled(page)
    assert page.get_attribute("#knob", "aria-valuetext").startswith("100 %")
