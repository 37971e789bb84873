"""`vgx look`: a contact sheet, read back pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx import images
from vgx.console import Console
from vgx.data.store import open_source, open_store
from vgx_data import look
from vgx_data.look import caption_of, chosen, write_sheet

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
CELL, TOP = 66, 24  # an image of 16 pixels is shown four times as large; the title, and a margin


def recipe_of(folder, *overrides, registry=None):
    settings = ["image.size=16", "augment=[]", *overrides]
    return vgx.load_recipe(TINY, settings, registry, data=str(folder))


def solid(folder, count, first=0):
    """Images of one colour each: their number is their red."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (16, 16), (number, 200, 40)).save(folder / f"{number:03}.png")
    return folder


def sheet(recipe, out, registry=None):
    """Return the pixels of a sheet, as they are in its file."""
    write_sheet(recipe, registry or vgx.discover(), Console(), out)
    return np.asarray(Image.open(out).convert("RGB"))


def middle(pixels, row, column, left=0):
    """Return the colour in the middle of an image on a sheet."""
    return tuple(int(n) for n in pixels[TOP + row * CELL + 32, left + 2 + column * CELL + 32])


def test_images_are_spread_over_the_data_set_in_its_order(tmp_path):
    pixels = sheet(recipe_of(solid(tmp_path / "mine", 128)), tmp_path / "sheet.png")
    assert pixels.shape == (22 + 2 + 8 * CELL, 2 + 8 * CELL, 3)
    shown = [middle(pixels, row, column)[0] for row in range(8) for column in range(8)]
    assert shown == list(range(0, 128, 2))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "mine", tmp_path / "sheet.png"]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(3, 64, [0, 1, 2]), (64, 64, [*range(64)]), (10, 4, [0, 2, 5, 7]), (1, 1, [0])],
)
def test_the_choice_of_images(count, most, expected):
    assert chosen(None, count, most).tolist() == expected


def test_each_class_has_as_many_images_and_at_most_sixteen_are_shown():
    labels = np.array([0] * 97 + [1] * 3)
    assert chosen(labels, 100, 8).tolist() == [0, 24, 48, 72, 97, 98, 99]
    many = chosen(np.arange(320) // 10, 320, 64)  # 32 classes of ten
    assert (many // 10).tolist() == [number for number in range(0, 32, 2) for _ in range(4)]


def test_an_image_without_a_label_is_not_chosen():
    labels = np.array([-1, 0, 0, 1, -1, 1, -1])
    assert chosen(labels, 7, 4).tolist() == [1, 2, 3, 5]
    assert chosen(labels, 7, 2).tolist() == [1, 3]
    assert chosen(np.array([-1, -1, -1]), 3, 2).tolist() == [0, 1]


def test_beside_the_images_they_are_shown_after_augmentation(tmp_path):
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:, :8] = 250, 10, 10
    (tmp_path / "mine").mkdir()
    Image.fromarray(halves).save(tmp_path / "mine" / "0.png")
    flipped = "[{type: horizontal-flip, p: 1}]"
    recipe = recipe_of(tmp_path / "mine", f"augment={flipped}", f"diff_augment={flipped}")
    pixels = sheet(recipe, tmp_path / "sheet.png")
    width = pixels.shape[1] // 3  # as decoded, after augment, after both
    seen = [pixels[TOP + 32, width * n + 2 + 16][0] for n in range(3)]  # the left half of each
    assert seen == [250, 0, 250]
    assert [pixels[:22, width * n : width * (n + 1)].max() > 128 for n in range(3)] == [True] * 3


def test_draws_of_the_augmentations_stand_in_the_row_of_their_image(tmp_path):
    """Images with a red left half: a draw is flipped or is not, and keeps its number, its blue."""
    (tmp_path / "mine").mkdir()
    for number in range(12):
        halves = np.full((16, 16, 3), (0, 0, 20 * number), np.uint8)
        halves[:, :8, 0] = 250
        Image.fromarray(halves).save(tmp_path / "mine" / f"{number:02}.png")
    flips = "augment=[{type: horizontal-flip, p: 0.5}]"
    recipe = recipe_of(tmp_path / "mine", flips, "diff_augment=[{type: horizontal-flip, p: 1}]")
    write_sheet(recipe, vgx.discover(), Console(), tmp_path / "sheet.png", augmented=True)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    panel = 2 + 8 * CELL
    left = pixels.shape[1] - 2 * panel  # of the first panel: one column, and its title
    assert pixels.shape[0] == 22 + 2 + 8 * CELL
    assert left < 2 * CELL
    shown = [0, 1, 3, 4, 6, 7, 9, 10]  # eight of twelve: the number k * 12 / 8, without its rest

    def column(at):
        rows = [pixels[TOP + row * CELL + 32, at] for row in range(8)]
        assert [int(pixel[2]) for pixel in rows] == [20 * number for number in shown]
        return [pixel[0] == 250 for pixel in rows]  # whether the red is here

    assert column(2 + 16) == [True] * 8
    drawn = [column(left + 2 + n * CELL + 16) for n in range(8)]
    flipped = [column(left + panel + 2 + n * CELL + 16) for n in range(8)]
    assert flipped == [[not red for red in draw] for draw in drawn]
    assert {True, False} == {red for row in zip(*drawn, strict=True) for red in row}
    assert len({tuple(row) for row in zip(*drawn, strict=True)}) > 4  # each with its own draws


def test_without_augmentations_there_are_no_draws(tmp_path, vgx_here):
    settings = ("--data", solid(tmp_path / "mine", 2), "--set", "augment=[]")
    code, _, err = vgx_here("look", TINY, *settings, "--augmented")
    assert code == 2
    assert "has no augmentations; give it some, as in: --set 'augment=[horizontal-flip]'" in err
    code, out, _ = vgx_here("look", TINY, *settings[:2], "--augmented")
    assert (code, out.splitlines()[-1]) == (0, "Picture look-tiny-augmented.png")


def test_rows_are_classes_with_their_number_at_the_left(tmp_path):
    solid(tmp_path / "mine" / "a", 3)
    solid(tmp_path / "mine" / "b", 2, first=100)
    recipe = recipe_of(tmp_path / "mine", "dataset.label=folder", "image.classes=2")
    pixels = sheet(recipe, tmp_path / "sheet.png")
    left = pixels.shape[1] - (2 + 3 * CELL)
    colours = [[middle(pixels, row, column, left)[0] for column in range(3)] for row in range(2)]
    assert colours == [[0, 1, 2], [100, 101, 0]]
    for row in range(2):  # a caption
        assert pixels[TOP + row * CELL : TOP + row * CELL + 64, :left].max() > 128


@pytest.mark.parametrize("stored", [False, True])
def test_classes_are_named_and_counted(tmp_path, monkeypatch, capsys, stored):
    solid(tmp_path / "mine" / "\u732b", 3)
    solid(tmp_path / "mine" / ("long " * 9), 2, first=100)
    recipe = recipe_of(tmp_path / "mine", "dataset.label=folder", "image.classes=2")
    if stored:
        open_store(open_source(recipe.dataset, recipe.image)[0], recipe.image)
    given = []
    monkeypatch.setattr(look, "grid", lambda *some: given.append(some[2]) or images.grid(*some))
    sheet(recipe, tmp_path / "sheet.png")
    assert given == [["0 long long long long long", "1 \u732b"]] or given == [
        [f"0 {('long ' * 9)[:24]}", "1 \u732b"]
    ]
    assert f"2 classes: {' '.join(['long'] * 9)} (2), \u732b (3)" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_is_left_out_is_counted(tmp_path, capsys):
    folder = solid(tmp_path / "mine", 5)
    Image.new("L", (16, 16), 90).save(folder / "005.png")
    (folder / "006.png").write_bytes(b"torn")
    recipe = recipe_of(folder, "dataset.non_rgb=skip")
    pixels = sheet(recipe, tmp_path / "sheet.png")
    assert pixels.shape == (22 + 2 + 2 * CELL, 2 + 3 * CELL, 3)
    text = " ".join(capsys.readouterr().out.split())
    assert "7 images before filtering; 7 were decoded: 5 images kept, 1 dropped (1 grey" in text
    assert "1 unreadable (006.png: not an image" in text


def test_images_of_a_store_are_not_decoded_again(tmp_path, monkeypatch, capsys):
    recipe = recipe_of(solid(tmp_path / "mine", 70))
    decoded = sheet(recipe, tmp_path / "decoded.png")
    open_store(open_source(recipe.dataset, recipe.image)[0], recipe.image)
    monkeypatch.setattr(look, "peek", None)
    assert np.array_equal(sheet(recipe, tmp_path / "stored.png"), decoded)
    assert capsys.readouterr().out.count("Data: 70 images\n") == 1


def test_large_images_are_fewer(tmp_path):
    """64 images of 4,096 pixels would be 13 GB."""
    solid(tmp_path / "mine", 5)
    recipe = recipe_of(tmp_path / "mine", "image.size=4096")
    assert look.most_images(recipe.image, augmented=False) == 1
    assert look.most_images(vgx.ImageSpec(1024), augmented=False) == 21
    assert look.most_images(vgx.ImageSpec(512), augmented=False) == 64
    # With eight draws of each.
    assert look.most_images(vgx.ImageSpec(1024), augmented=True) == 2
    assert look.most_images(vgx.ImageSpec(512), augmented=True) == 8


@pytest.mark.parametrize("arguments", [[], ["--out", "mine/deeper/x.png"], ["--out", "./x.jpg"]])
def test_a_sheet_never_becomes_one_of_the_images(tmp_path, vgx_here, monkeypatch, arguments):
    solid(tmp_path / "mine", 2)
    data = "mine" if "mine" in str(arguments) else "."
    monkeypatch.chdir(tmp_path if data == "mine" else tmp_path / "mine")
    code, out, err = vgx_here("look", TINY, "--data", data, *arguments)
    assert (code, out) == (2, "")
    assert f"lies in the folder of the images, {tmp_path / 'mine'}, and would become one" in err
    assert len(list((tmp_path / "mine").iterdir())) == 2


def test_the_command_says_where_the_sheet_is(tmp_path, vgx_here):
    solid(tmp_path / "mine", 2)
    code, out, err = vgx_here("look", "tiny", "--data", "mine", "--set", "name=own")
    assert (code, err) == (0, "")
    assert "Picture look-own.png" in out
    assert (tmp_path / "look-own.png").is_file()
    assert not (tmp_path / "cache").exists()
    assert vgx_here("look", "tiny", "--out", "x.txt")[0] == 2
    assert vgx_here("look", "tiny", "--data", "nowhere")[0] == 4


PLUGIN = """
import vgx
class Broken(vgx.Augmentation, type="broken"):
    "An augmentation that fails when it is called."
    def build(self, image):
        return lambda images, generator: 1 / 0
@vgx.hookimpl
def register_components(register):
    register(Broken)
"""


def test_an_augmentation_that_fails_is_named(tmp_path, vgx_here):
    (tmp_path / "mine.py").write_text(PLUGIN)
    code, _, err = vgx_here("look", "tiny", "--plugin", "mine.py", "--set", "augment=[broken]")
    assert code == 3
    assert "augmentation 'broken'" in err
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("stored", [False, True])
def test_the_background_is_that_of_a_training(tmp_path, stored, capsys):
    (tmp_path / "mine").mkdir()
    for number in range(3):
        shape = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
        shape.paste((9 * number, 0, 0, 255), (4, 4, 12, 12))
        shape.save(tmp_path / "mine" / f"{number}.png")
    recipe = recipe_of(tmp_path / "mine")
    if stored:
        white = vgx.ImageSpec(16, background="white")
        open_store(open_source(recipe.dataset, white)[0], white)
    pixels = sheet(recipe, tmp_path / "sheet.png")
    assert tuple(pixels[TOP + 4, 2 + 4]) == (255, 255, 255)
    out = capsys.readouterr().out
    assert "image.background: white" in out
    assert ("were decoded" in out) is not stored


def test_a_name_that_is_the_number_itself_is_written_once():
    assert caption_of(1, ["0", "1"]) == "1"
    assert caption_of(1, ["cat", "dog"]) == "1 dog"
    assert caption_of(4, None) == "4"


@pytest.mark.parametrize("stored", [False, True])
def test_files_that_are_left_out_are_counted(tmp_path, capsys, stored):
    recipe = recipe_of(solid(tmp_path / "mine", 3))
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    if stored:
        open_store(open_source(recipe.dataset, recipe.image)[0], recipe.image)
    sheet(recipe, tmp_path / "sheet.png")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Data: ")]
    assert ", 1 left out (1 .txt)" in line
    assert ("before filtering" in line) is not stored
