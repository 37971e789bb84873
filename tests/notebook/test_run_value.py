"""A run for people: its history, what it draws, and how it shows itself."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx.notebook import given
from vgx.notebook.live import Live
from vgx.notebook.run import _weights, newest_grid
from vgx.runs import directory, frames

pytestmark = pytest.mark.slow


@pytest.fixture
def faces(tmp_path):
    """Five images of noise, as tensor and as files."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    folder = tmp_path / "faces"
    folder.mkdir()
    for i, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{i}.png")
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, folder


@pytest.fixture
def copied(small_run, tmp_path):
    shutil.copytree(small_run.path, tmp_path / "runs" / "0007-tiny")
    return vgx.Run(tmp_path / "runs" / "0007-tiny")


def test_it_is_found_as_commands_find_it(copied):
    for name in (7, "7", "tiny", None, str(copied.path), copied, directory.Run(copied.path)):
        assert vgx.Run(name) == copied
    with pytest.raises(vgx.StorageError, match="no run '8'"):
        vgx.Run(8)


def test_the_history_is_the_log(small_run):
    lines = [json.loads(text) for text in small_run.log_file.read_text().splitlines()]
    frame = small_run.history
    assert type(frame).__module__.startswith("pandas")
    assert frame["step"].tolist() == [1, 2, 3, 4]
    assert frame["losses.l1"].tolist() == [line["losses"]["l1"] for line in lines]
    assert frame["rates.generator"].iloc[-1] == lines[-1]["rates"]["generator"]


def test_without_pandas_the_history_is_rows(small_run, monkeypatch):
    frame = small_run.history
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = small_run.history
    assert len(rows) == 4
    assert rows["losses.l1"] == frame["losses.l1"].tolist()
    assert rows[-1]["step"] == 4
    assert rows._repr_html_().count("<tr>") == 5
    with pytest.raises(KeyError, match=r"losses\.l2: there are step"):
        rows["losses.l2"]


def test_it_draws_what_the_function_draws(small_run):
    drawn = small_run.sample(n=5, seed=3)
    assert torch.equal(drawn.tensor, vgx.sample(small_run, n=5, seed=3, device="cpu"))
    assert "weighted-mix, seed 3" in repr(drawn)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 2.5}, {"n": True}, {"seed": -1}])
def test_it_draws_with_whole_numbers_alone(small_run, wrong):
    with pytest.raises(vgx.RecipeError, match="give a whole number, at least"):
        small_run.sample(**wrong)


def test_it_reconstructs_a_folder_a_file_and_a_tensor(small_run, faces):
    images, folder = faces
    model = vgx.load(small_run, "cpu")
    expected = torch.sigmoid(model.decoder(model.encoder(images).mean))
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    files = sorted(folder.iterdir())
    for some in (images, folder, files, [Image.open(folder / "0.png")], pixels, pixels[0]):
        made = small_run.reconstruct(some)
        count = len(made)
        assert torch.equal(made.originals, images[:count])
        torch.testing.assert_close(made.tensor, expected[:count], atol=1e-5, rtol=0)
    assert len(small_run.reconstruct(folder, n=2)) == 2
    for wrong in (folder / "none.png", torch.zeros(1, 3, 8, 8), 7, []):
        with pytest.raises(vgx.DataError):
            small_run.reconstruct(wrong)
    (folder / "0.png").write_text("no image")
    with pytest.raises(vgx.DataError, match=r"0\.png: UnidentifiedImageError"):
        small_run.reconstruct(folder / "0.png")


def test_a_file_is_read_as_a_data_set_reads_it(small_run, faces, tmp_path, monkeypatch):
    images, folder = faces
    turned, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.open(folder / "0.png").save(turned, exif=exif)
    assert torch.equal(small_run.reconstruct(turned).originals, images[:1].flip(2, 3))
    archive = Path(shutil.make_archive(str(tmp_path / "faces"), "zip", folder))
    assert torch.equal(small_run.reconstruct(archive).originals, images)
    assert torch.equal(small_run.reconstruct([turned, archive], n=3).originals[1:], images[:2])
    program = tmp_path / "program.png"
    Image.open(folder / "0.png").save(program, "EPS")
    with pytest.raises(vgx.DataError, match=r"program\.png: UnidentifiedImageError"):
        small_run.reconstruct(program)
    monkeypatch.setattr(given, "MAX_PIXELS", 255)
    with pytest.raises(vgx.DataError, match="16 x 16 pixels; at most 255"):
        small_run.reconstruct(turned)


def test_no_more_images_are_read_than_are_asked_for(small_run, faces):
    images, folder = faces
    for some in ([images, folder], [folder, images], [images[0], folder], (folder, folder)):
        assert len(small_run.reconstruct(some, n=3)) == 3
    assert len(small_run.reconstruct([images[:2], folder], n=9)) == 7
    for some in (images, folder, [folder]):
        with pytest.raises(vgx.DataError, match="n: 0: give a whole number, at least 1"):
            small_run.reconstruct(some, n=0)
    with pytest.raises(vgx.DataError, match="n: 0: give a whole number, at least 1"):
        vgx.peek("tiny", 0)


def test_tensors_are_floats_from_0_to_1(small_run, faces):
    images, _ = faces
    halves = small_run.reconstruct(images.double().requires_grad_())
    assert torch.equal(halves.originals, images)
    for wrong in (images * 2, images - 0.5, images * float("nan")):
        with pytest.raises(vgx.DataError, match="outside of \\[0, 1\\], or that are no numbers"):
            small_run.reconstruct(wrong)


def test_it_mixes(small_run, faces):
    images, folder = faces
    files = [folder / "0.png", folder / "1.png", folder / "2.png"]
    single = small_run.reconstruct(images).tensor
    corner = small_run.mix(*files, weights=[0, 1, 0]).tensor
    torch.testing.assert_close(corner, single[1:2], atol=1e-5, rtol=0)
    model = vgx.load(small_run, "cpu")
    middle = model.decode(model.encode(images[:2]).mean(0, keepdim=True))
    half = small_run.mix(images[0], images[1], weights=[0.5, 0.5]).tensor
    torch.testing.assert_close(half, middle, atol=1e-5, rtol=0)
    assert len(small_run.mix(*files)) == 100
    ten, two = (small_run.mix(*files, n=n, seed=4).tensor for n in (10, 2))
    assert torch.equal(ten[:2], two)
    # Weights of a mean: whatever their sum is, and of NumPy as well.
    ones = small_run.mix(images[0], images[1], weights=np.array([1, 1])).tensor
    torch.testing.assert_close(ones, middle, atol=1e-5, rtol=0)
    for wrong in ([float("nan"), 1], [float("inf"), 1], [0, 0], [-2, 1]):
        with pytest.raises(vgx.RecipeError, match="give finite numbers with a positive sum"):
            small_run.mix(images[0], images[1], weights=wrong)
    two = small_run.sample(np.int64(2), seed=np.int32(3)).tensor
    assert torch.equal(two, small_run.sample(2, seed=3).tensor)
    with pytest.raises(vgx.RecipeError, match="n: True: give a whole number"):
        small_run.sample(True)
    with pytest.raises(vgx.RecipeError, match="2 for 3 images"):
        small_run.mix(*files, weights=[1, 0])
    with pytest.raises(vgx.RecipeError, match="two images or more"):
        small_run.mix(files[0])


def test_random_weights_are_uniform_over_those_that_sum_to_1():
    """Dirichlet(1, 1, 1): means of 1/3, variances of 2/9/4 = 1/18, all positive."""
    drawn = _weights(None, 20_000, 3, 0)
    assert drawn.sum(1).allclose(torch.ones(20_000))
    assert (drawn >= 0).all()
    assert drawn.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert drawn.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)


def test_it_shows_itself(small_run):
    first, second = repr(small_run).split("\n")
    assert first == "Run 0001-tiny · done · step 4 of 4"
    assert re.search(r"\bl1 0\.\d+", second)
    assert str(small_run.path) in second
    page = small_run._repr_html_()
    assert page.count("data:image/webp;base64,") == 1
    assert page.count("<polyline") == 5  # one for each term
    assert "report.html" in page
    assert len(page) < 1_000_000


def test_what_a_run_contains_is_text(copied, monkeypatch):
    """A name of a loss, a warning, a name of a folder: none of it becomes markup."""
    evil = "<img src=x onerror=alert(1)>"
    text = copied.log_file.read_text().replace('"l1"', json.dumps(evil))
    copied.log_file.write_text(text)
    run = vgx.Run(copied.path.rename(copied.path.with_name("0008-<b>x")))
    page = run._repr_html_()
    assert evil not in page
    assert "<b>x" not in page
    odd = run.path.rename(run.path.with_name("javascript:alert(1)"))
    monkeypatch.chdir(odd.parent)
    assert 'href="javascript%3Aalert%281%29/report.html"' in vgx.Run(odd)._repr_html_()
    assert "&lt;img src=x onerror=alert(1)&gt;, steps 1 to 4" in page


def test_a_grid_of_large_images_is_shown(copied):
    """Its bound is that of the recipe's images: 64 of 640 pixels are more than 64 of 512."""
    recipe = copied.recipe_file.read_text()
    copied.recipe_file.write_text(re.sub(r"\bsize: 16\b", "size: 640", recipe))
    grids = sorted(copied.samples.glob("step-*.png"))
    Image.new("RGB", (8 * 640, 8 * 640)).save(grids[-1])
    assert newest_grid(copied) is not None
    copied.recipe_file.write_text(recipe)
    with pytest.warns(vgx.Notice, match="no grid of this run"):
        assert newest_grid(copied) is None
    for odd in ({}, {"image": 3}, {"image": {"size": ["a", 4]}}, {"image": {"size": [4, 4, 4]}}):
        assert frames.pixels_of(odd) == 0
    assert frames.pixels_of({"image": {"size": [10**9, 5]}}) == 5 * 4096


def test_a_line_of_the_log_without_losses_is_shown(copied):
    with copied.log_file.open("a") as log:
        log.write('{"step": 5, "seconds": 3.0}\n')
    assert "<polyline" in copied._repr_html_()
    live = Live()
    live.lines = copied.read_log()
    assert live.pace() == ""


def test_a_broken_run_shows_what_can_be_read(copied):
    grids = sorted(copied.samples.glob("step-*.png"))
    grids[-1].write_bytes(b"no image")
    (copied.path / "ended.json").write_text("{")
    with copied.log_file.open("a") as log:
        log.write("no line\n")
    page = copied._repr_html_()
    assert "broken: ended.json" in page
    assert "passed over: line 5" in page
    assert f"left out: {grids[-1]}" in page
    assert "<polyline" in page
    shutil.rmtree(copied.path)
    assert "broken" in repr(copied)
    assert "broken" in copied._repr_html_()


def test_a_hook_gets_such_a_run(tmp_path, install):
    plugin = """
        import vgx

        @vgx.hookimpl
        def run_ended(run):
            (run.path / "seen.txt").write_text(f"{type(run) is vgx.Run} {len(run.history)}")
    """
    install("vgx-watching", "\n".join(line[8:] for line in plugin.splitlines()))
    recipe = vgx.load_recipe("tiny", {"train.steps": 1, "dataset.count": 8})
    run = vgx.run(recipe, out=tmp_path / "runs", device="cpu")
    assert (run.path / "seen.txt").read_text() == "True 1"


def test_a_folder_whose_name_is_no_text_has_an_address():
    from vgx.notebook.html import address

    assert address(Path("bad\udcff/a b.html")) == "bad%FF/a%20b.html"
