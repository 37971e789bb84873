"""What `auto` of `image` was for a run is in its recipe, and stays."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.console import Console
from vgx.errors import RecipeError
from vgx.recipe.load import load_recipe
from vgx.training import session

pytestmark = pytest.mark.usefixtures("no_pages")

RECIPE = """
name: t
image: {size: 16, channels: 1}
latent: 4
dataset: {type: image-folder, path: PLACE}
encoder: {type: conv, widths: [4]}
decoder: {type: conv-transpose, widths: [4]}
losses: [l1, kl]
sampler: prior
train: {steps: 2, batch: 4, save_every: 1, draw_every: 100, precision: fp32}
"""


def folder_of(path, images):
    path.mkdir()
    for number, image in enumerate(images):
        image.save(path / f"{number}.{'tif' if image.mode == 'I;16' else 'png'}")
    return path


def deep(seed):
    """Ten bits of sixteen, twice as wide as high."""
    values = np.random.default_rng(seed).integers(0, 1024, (16, 32))
    return Image.fromarray(values.astype(np.uint16))


def clear(seed):
    """Black noise on nothing."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.putalpha(
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8))
    )
    return image


def trained(tmp_path, images, **changes):
    text = RECIPE.replace("PLACE", str(folder_of(tmp_path / "images", images)))
    (tmp_path / "t.yaml").write_text(text)
    out = io.StringIO()
    recipe = load_recipe(tmp_path / "t.yaml", changes)
    return session.run(recipe, device="cpu", console=Console(file=out)), out.getvalue()


def resumed(run, steps, recipe=None):
    recipe = recipe or load_recipe(run.recipe_file, {"train.steps": steps})
    return session.resume(run, recipe, "cpu", Console(file=io.StringIO()))


@pytest.mark.slow
def test_the_range_that_was_measured_is_in_the_recipe_of_the_run(tmp_path):
    run, out = trained(tmp_path, [deep(seed) for seed in range(8)])
    assert "image.range: [0.0, 1023.0]" in out
    assert "twice as wide" not in out
    assert "2.00 times as wide as it is high" in out
    assert load_recipe(run.recipe_file).image == vgx.ImageSpec(16, 1, range=(0, 1023))
    data = json.loads((run.path / "environment.json").read_text())["data"]
    assert data["kind"] == "uint16"
    assert (data["look"]["ratio"], data["look"]["kinds"]) == (2, {"uint16": 8})
    assert any("image.fit=crop" in notice for notice in run.environment()["notices"])
    assert resumed(run, 3) is not None
    longer = load_recipe(tmp_path / "t.yaml", {"train.steps": 4})  # `auto` is as it was
    assert resumed(run, 4, longer) is not None
    other = load_recipe(run.recipe_file, {"train.steps": 5, "image.range": [0, 500]})
    with pytest.raises(RecipeError, match=r"image\.range"):
        resumed(run, 5, other)


@pytest.mark.slow
def test_the_background_that_was_chosen_is_in_the_recipe_of_the_run(tmp_path):
    run, out = trained(tmp_path, [clear(seed) for seed in range(8)])
    assert "image.background: white" in out
    assert load_recipe(run.recipe_file).image == vgx.ImageSpec(16, 1, background="white")
    assert resumed(run, 3) is not None


@pytest.mark.slow
def test_a_run_from_before_there_was_a_background_is_resumed_on_black(tmp_path):
    """The recipe of an old run has no such field; its transparent images were laid on black."""
    run, _ = trained(tmp_path, [clear(seed) for seed in range(8)], **{"image.background": "black"})
    text = run.recipe_file.read_text()
    before = re.sub(r"\n  (fit|background|range): .*|, (fit|background|range): [^,}]*", "", text)
    run.recipe_file.write_text(before)
    assert load_recipe(run.recipe_file).image == vgx.ImageSpec(16, 1)
    assert resumed(run, 3) is not None


@pytest.mark.slow
def test_plain_images_settle_nothing(tmp_path):
    noise = [np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8) for seed in range(8)]
    run, out = trained(tmp_path, [Image.fromarray(each) for each in noise])
    assert load_recipe(run.recipe_file).image == replace(vgx.ImageSpec(16), channels=1)
    assert "image." not in out
    assert "NOTICE" not in out


@pytest.mark.slow
def test_a_check_looks_at_the_first_images(tmp_path):
    place = folder_of(tmp_path / "images", [clear(seed) for seed in range(8)])
    (tmp_path / "t.yaml").write_text(RECIPE.replace("PLACE", str(place)))
    out = io.StringIO()
    recipe = load_recipe(tmp_path / "t.yaml", {"image.background": "black"})
    session.check(recipe, vgx.discover(), "cpu", Console(file=out))
    assert "8 of 8 images are one flat colour" in out.getvalue()
    assert "--set image.background=white" in out.getvalue()
