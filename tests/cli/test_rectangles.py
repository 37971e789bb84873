"""Images that are not square, from a folder of wide ones to the pages of their runs."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image, ImageDraw

PLUGIN = '''
import vgx
from torch import nn


class Quarter(vgx.Decoder, type="quarter"):
    """A decoder of square images."""

    def build(self, latent, image):
        side = image.size // 4
        return nn.Linear(latent.shape[0], side)


class Halved(vgx.Metric, type="halved"):
    """A metric of square images."""

    pairs = True

    def build(self, image):
        return image.size / 2


class Tiles(vgx.Augmentation, type="tiles"):
    """An augmentation of square images."""

    def build(self, image):
        return lambda images, generator: images.view(-1, image.size // 2, 2)


@vgx.hookimpl
def register_components(register):
    for part in (Quarter, Halved, Tiles):
        register(part)
'''
RECIPE = """
name: wide
image: {size: [16, 32]}
latent: 6
dataset: {type: image-folder, path: wide}
encoder: {type: conv, widths: [4, 8]}
decoder: {type: conv-transpose, widths: [8, 4]}
losses: [l1, kl]
sampler: aggregate-gaussian
train: {steps: 6, batch: 8, log_every: 2, draw_every: 3, save_every: 3}
"""
CHANGES = {
    "vae-gan": (
        "discriminator={type: timm-patchgan, backbone: test_resnet}",
        "losses=[l1, kl, hinge]",
    ),
    "spatial": (
        "latent=[3,4,8]",
        "encoder={type: residual, widths: [4, 8]}",
        "decoder={type: residual, widths: [8, 4]}",
    ),
}


@pytest.fixture
def wide(tmp_path):
    """Forty landscapes of 2:1, and a recipe."""
    (tmp_path / "wide").mkdir()
    for number in range(40):
        draws = random.Random(number)
        image = Image.new("RGB", (80, 40), tuple(draws.randrange(256) for _ in range(3)))
        ImageDraw.Draw(image).ellipse((draws.randrange(60), 5, 75, 35), "white")
        image.save(tmp_path / "wide" / f"{number:02}.png")
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "part", "where"),
    [
        ("decoder=quarter", "decoder 'quarter' of mine.py", "//: 'tuple' and 'int' (at mine.py:10"),
        (
            "eval={metrics: [halved], every: 3}",
            "metric 'halved' of mine.py",
            "/: 'tuple' and 'int' (at mine.py:20)",
        ),
        ("augment=[tiles]", "augmentation 'tiles' of mine.py", "//: 'tuple' and 'int' (at mine.py"),
    ],
)
def test_a_part_of_square_images_is_named_with_a_size_that_it_takes(
    wide, vgx_here, change, part, where
):
    (wide / "mine.py").write_text(PLUGIN)
    code, _, err = vgx_here("check", "r.yaml", "--plugin", "mine.py", "--set", change)
    assert code == 3
    assert part in err
    assert where in err
    advice = "here images are 16 x 32 pixels: if it takes square ones only, write image.size=16"
    assert advice in err
    assert "Traceback" not in err


def test_a_recipe_whose_sizes_do_not_fit_is_told_what_fits(wide, vgx_here):
    code, _, err = vgx_here("check", "r.yaml", "--set", "image.size=[18,32]")
    assert code == 2
    assert "18 x 32 pixels can't be halved 2 times; try image.size=[16,32]" in err
    assert vgx_here("check", "r.yaml", "--set", "image.size=[16,16]")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae-gan", pytest.param("spatial", marks=pytest.mark.chaos)])
def test_wide_images_are_trained_on_resumed_sampled_and_evaluated(wide, vgx_program, name):
    settings = [word for change in CHANGES[name] for word in ("--set", change)]
    out = vgx_program("run", "r.yaml", *settings, "--device", "cpu").stdout
    assert "3x16x32" in out
    vgx_program.pages = True
    vgx_program("run", "--resume", "1", "--set", "train.steps=8", "--device", "cpu")
    (run,) = (wide / "runs").iterdir()
    with Image.open(run / "samples" / "step-00000006.png") as grid:
        assert grid.size == (8 * 34 + 2, 8 * 18 + 2)
    with Image.open(run / "samples" / "timelapse.webp") as film:
        assert film.size[0] > film.size[1]
    vgx_program("sample", "1", "-n", "6", "--out", "grid.png")
    vgx_program("sample", "1", "-n", "3", "--separate", "single")
    vgx_program("sample", "1", "-n", "6", "--sampler", "interpolate", "--animate", "--out", "a.gif")
    reconstruct = ("--sampler", "reconstruct", "--set", "path=wide", "--out", "recon.png")
    vgx_program("sample", "1", "-n", "4", *reconstruct)
    sizes = {"grid.png": (104, 38), "single/000002.png": (32, 16), "recon.png": (70, 38)}
    for file, size in sizes.items():
        with Image.open(wide / file) as image:
            assert image.size == size
    vgx_program("eval", "1", "-n", "20", "--seeds", "1")
    results = json.loads((run / "evaluation.json").read_text())
    assert {"ssim", "perceptual", "psnr"} <= {metric["type"] for metric in results["metrics"]}
    page = (run / "report.html").read_text()
    assert "at 16 x 32 pixels." in page
    assert "3x16x32" in vgx_program("explain", "1").stdout
