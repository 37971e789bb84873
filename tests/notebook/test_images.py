"""Images for people: what a notebook shows, what is saved."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx.notebook.images import MOST


def ramp(n, side=8):
    """Image i is i/15 in red, 0 in green, 1 in blue everywhere."""
    images = torch.zeros(n, 3, side, side)
    images[:, 0] = torch.arange(n).view(n, 1, 1) / 15
    images[:, 2] = 1
    return images


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_numbers_are_bytes_with_channels_last():
    array = vgx.Images(ramp(3)).numpy()
    assert array.shape == (3, 8, 8, 3)
    assert array.dtype == np.uint8
    assert array[2, 0, 0].tolist() == [34, 0, 255]


def test_a_notebook_shows_one_grid_of_whole_pixels():
    """Four images of 8 pixels with 2 between: 22 pixels, each 17 x 17 in what is shown."""
    shown = pixels(vgx.Images(ramp(4))._repr_png_())
    assert shown.shape == (374, 374, 3)
    small = shown[::17, ::17]
    assert (np.kron(small, np.ones((17, 17, 1), np.uint8)) == shown).all()
    assert small[2, 2].tolist() == [0, 0, 255]
    assert small[12, 12].tolist() == [51, 0, 255]  # the last: 3/15
    assert small[0, 0].tolist() == [0, 0, 0]


def test_each_row_of_originals_stands_above_its_images(tmp_path):
    """Ten pairs make two rows of eight, and the second one is filled."""
    made = vgx.Images(ramp(10), originals=1 - ramp(10))
    file = made.save(tmp_path / "pairs.png")
    small = np.asarray(Image.open(file))[6::10, 6::10]  # the middle of each place
    assert small.shape == (4, 8, 3)
    assert small[0, :, 0].tolist() == [255 - 17 * i for i in range(8)]
    assert small[1, :, 2].tolist() == [255] * 8
    assert small[2, :3, 2].tolist() == [0, 0, 0]  # originals 8 and 9
    assert small[3, :3, 0].tolist() == [136, 153, 0]


def test_some_of_them_are_images_too():
    made = vgx.Images(ramp(10), columns=5, originals=ramp(10))
    assert torch.equal(made[-1].tensor, ramp(10)[9:])
    assert torch.equal(made[2:4].originals, ramp(10)[2:4])
    assert [len(each) for each in made] == [1] * 10
    for index in (np.int64(3), torch.tensor(3)):
        assert torch.equal(made[index].tensor, ramp(10)[3:4])
    for index in (10, np.int64(10), -11):
        with pytest.raises(IndexError, match=f"image {index} of 10"):
            made[index]
    with pytest.raises(TypeError):
        made[[0, 1]]
    with pytest.raises(vgx.RecipeError, match=r"give \[N, C, H, W\]"):
        vgx.Images(ramp(2)[0])
    with pytest.raises(vgx.RecipeError, match="originals"):
        vgx.Images(ramp(2), originals=ramp(3))


def test_a_grid_that_is_large_as_png_is_a_small_jpeg():
    noise = vgx.Images(torch.rand(100, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert noise._repr_png_() is None
    assert len(noise._repr_jpeg_()) <= MOST == 500_000
    assert vgx.Images(ramp(4))._repr_jpeg_() is None


def test_notices_are_shown_as_text():
    assert vgx.Images(ramp(1))._repr_html_() is None
    page = vgx.Images(ramp(1), notices=("few <b>codes</b>\x1b[2J",))._repr_html_()
    assert "NOTICE: few &lt;b&gt;codes&lt;/b&gt;\\x1b[2J" in page
    assert page.count("<img") == 1


def test_two_lines_of_text():
    first, second = repr(vgx.Images(ramp(3), about="drawn")).split("\n")
    assert first == "3 images of 8 x 8 pixels: drawn"
    assert ".save(" in second


def test_a_file_is_what_its_ending_says(tmp_path):
    made = vgx.Images(ramp(1))
    for ending, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")):
        with Image.open(made.save(tmp_path / f"x{ending}")) as image:
            assert image.format == kind
    with pytest.raises(vgx.RecipeError, match="gif"):
        made.save(tmp_path / "x.gif")


def test_single_images_can_be_a_data_set_and_grids_cannot(tmp_path):
    """`run.reconstruct` of a folder in which somebody has put them."""
    images = vgx.Images(ramp(3))
    for i in range(3):
        images[i].save(tmp_path / f"{i}.png")
    images.save(tmp_path / "grid.png")
    folder = {"type": "image-folder", "path": tmp_path}
    found = vgx.peek({"extends": "tiny", "image": {"size": 8}, "dataset": folder})
    assert np.array_equal(found.numpy(), images.numpy())
