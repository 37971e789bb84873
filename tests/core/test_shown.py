"""How images of any size and any number of channels look in grids and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from vgx import images as shown
from vgx.errors import RecipeError


def levels(*values, height=8, width=16):
    """[1, C, H, W]  One image with one value in each channel."""
    return torch.tensor(values)[None, :, None, None].expand(-1, -1, height, width)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.2,), (0.2,)),
        ((0.2, 0.9), (0.2,)),
        ((0.2, 0.4, 0.6), (0.2, 0.4, 0.6)),
        ((0.2, 0.4, 0.6, 1.0), (0.2, 0.4, 0.6)),
        ((0.2, 0.4, 0.6, 0.8, 1.0), (0.2, 0.4, 0.6)),
    ],
)
def test_channels_are_shown_as_grey_or_rgb(values, expected):
    image = shown.opaque(levels(*values))
    assert torch.allclose(image, levels(*expected))
    assert shown.grid(levels(*values)).shape == (3, 8, 16)


def test_what_is_transparent_shows_a_checkerboard():
    """Squares of 8 / 8 = 1 pixel; half of 0.6 and half of a red image are 0.3 and 0.5 more."""
    through = shown.opaque(levels(1.0, 1.0, 1.0, 0.0))[0]
    assert torch.allclose(through[:, 0, :4], torch.tensor([0.6, 0.4, 0.6, 0.4]))
    assert torch.allclose(through[:, 1, :4], torch.tensor([0.4, 0.6, 0.4, 0.6]))
    half = shown.opaque(levels(1.0, 0.0, 0.0, 0.5))[0, :, 0, 0]
    assert torch.allclose(half, torch.tensor([0.8, 0.3, 0.3]))
    wide = shown.opaque(levels(0.0, 0.0, 0.0, 0.0, height=32, width=64))[0, 0]
    assert wide[0].tolist() == pytest.approx(([0.6] * 4 + [0.4] * 4) * 8)


@pytest.mark.parametrize(
    ("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "RGB"), (9, "RGB")]
)
def test_single_files_keep_alpha(tmp_path, channels, mode):
    images = torch.rand(2, channels, 8, 16)
    assert sum(shown.save_separately([images], tmp_path)) == 2
    with Image.open(tmp_path / "000001.png") as image:
        assert (image.mode, image.size) == (mode, (16, 8))
        pixels = np.asarray(image).reshape(8, 16, -1)
    kept = pixels.shape[-1]
    expected = (images[1, :kept] * 255).round().permute(1, 2, 0)
    assert (pixels == expected.numpy().astype(np.uint8)).all()


@pytest.mark.parametrize("columns", [1, 3, 8])
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (1, 3), (2, 1), (5, 3), (9, 3)])
def test_a_grid_is_that_of_torchvision(count, channels, columns):
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(count, channels, 5, 7, generator=generator)
    expected = make_grid(images, nrow=columns, padding=2)
    assert torch.equal(shown.grid(images, columns), expected)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".pdf"])
@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_grid_of_any_channels_is_a_file_of_any_format(tmp_path, channels, ending):
    made = shown.save_grid(torch.rand(6, channels, 8, 16), tmp_path / f"grid{ending}", 3)
    assert made.shape == (3, 2 * 10 + 2, 3 * 18 + 2)
    assert (tmp_path / f"grid{ending}").stat().st_size > 100


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize(("size", "expected"), [((8, 16), (384, 192)), ((16, 8), (192, 384))])
def test_an_animation_is_enlarged_by_its_larger_side(tmp_path, channels, size, expected):
    shown.animate(torch.rand(3, channels, *size), tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as film:
        assert (film.size, film.n_frames) == (expected, 3)


@pytest.mark.parametrize("size", [(12, 40), (40, 12)])
def test_captions_stand_in_the_middle_of_their_rows(size):
    height, width = size
    plain = shown.grid(torch.ones(3, 3, height, width), 1)
    assert plain.shape == (3, 3 * (height + 2) + 2, width + 4)
    captioned = shown.grid(torch.ones(3, 3, height, width), 1, ["HH", "", "HH"])
    margin = captioned[0, :, : -plain.shape[2]]
    for row in (0, 2):
        top = 2 + row * (height + 2)
        inked = margin[top : top + height].any(1).nonzero()[:, 0]
        middle = (inked.min() + inked.max() + 1).item() / 2
        assert abs(middle - height / 2) <= 1.5
    assert margin.any(1).nonzero().max() < 2 + 2 * (height + 2) + height


def test_a_grid_is_refused_by_its_larger_side():
    """Five rows of 10,000 + 2 pixels and a margin of 2 are 50,012; WebP takes 16,383."""
    path = Path("x.webp")
    shown.require_image_file(path, 1000, (8, 2), columns=1000)
    with pytest.raises(RecipeError, match=r"50,012 pixels wide or high"):
        shown.require_image_file(path, 10, (10_000, 8), columns=2)
    shown.require_image_file(path, 10, (1_000, 8), columns=2)
