"""Images that are not square, and images of any number of channels, in the parts of the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

import vgx
from vgx.errors import RecipeError
from vgx.parts.base import validate
from vgx.testing import full_step
from vgx_builtin.datasets.drawn_faces import DrawnFaces
from vgx_builtin.datasets.face_drawing import draw_face, draw_factors
from vgx_builtin.metrics.perceptual import Perceptual

REGISTRY = vgx.discover()
WIDE, TALL = vgx.ImageSpec((16, 32)), vgx.ImageSpec((32, 16))
FLAT = vgx.LatentSpec((5,))


def part(kind, name, **fields):
    return validate(REGISTRY.part(kind, name), fields, REGISTRY)


def random_images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("name", ["conv-transpose", "dcgan", "residual"])
def test_a_decoder_gives_images_of_the_recipes_height_width_and_channels(name, channels):
    image = vgx.ImageSpec((16, 32), channels)
    decoder = part("decoder", name, widths=[6, 4]).build(FLAT, image)
    assert decoder(torch.randn(2, 5)).shape == (2, channels, 16, 32)


def test_a_latent_has_the_proportions_of_the_image():
    """Two halvings of 16 x 32 pixels leave 4 x 8 places."""
    latent = vgx.LatentSpec((3, 4, 8))
    encoder = part("encoder", "residual", widths=[4, 6]).build(WIDE, latent)
    assert encoder(random_images(2, 3, 16, 32)).mean.shape == (2, 3, 4, 8)
    quantised = part(
        "encoder", "vector-quantised", inner={"type": "residual", "widths": [4, 6]}, codes=7
    ).build(WIDE, latent)
    posterior = quantised(random_images(2, 3, 16, 32))
    assert (posterior.mean.shape, posterior.indices.shape) == ((2, 3, 4, 8), (2, 4, 8))
    decoder = part("decoder", "residual", widths=[6, 4]).build(latent, WIDE)
    assert decoder(posterior.mean).shape == (2, 3, 16, 32)


def test_patches_have_the_proportions_of_the_image():
    """16 x 32 pixels: one halving, to 8 x 16, and two convolutions that take one place each."""
    discriminator = part("discriminator", "patchgan", widths=[4, 6]).build(WIDE, FLAT)
    assert discriminator(random_images(2, 3, 16, 32)).logits.shape == (2, 1, 6, 14)
    backbone = part("discriminator", "timm-patchgan", backbone="test_resnet")
    image = vgx.ImageSpec((64, 160), 4)
    logits = backbone.build(image, FLAT)(random_images(2, 4, 64, 160)).logits
    assert logits.shape == (2, 1, 2, 5)  # a place for 32 x 32 pixels
    inner = {"type": "patchgan", "widths": [4, 6]}
    both = part("discriminator", "multi-scale", inner=inner).build(WIDE, FLAT)
    # The grids are 6 x 14 and 2 x 6: 84 is a multiple of 12.
    assert both(random_images(2, 3, 16, 32)).logits.shape == (2, 1, 2 * 84, 1)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_a_backbone_of_one_image_size_is_built_for_height_and_width(shape):
    backbone = part("encoder", "timm", backbone="vit_tiny_patch16_224")
    encoder = backbone.build(vgx.ImageSpec(shape, 4), FLAT)
    assert encoder(random_images(2, 4, *shape)).mean.shape == (2, 5)
    with pytest.raises(AssertionError):  # of timm, which compares the sizes
        encoder(random_images(2, 4, *shape[::-1]))


def test_a_backbone_that_takes_square_images_only_says_so():
    expected = r"backbone convit_tiny takes no images of 32 x 64 pixels: .*; use another size or"
    with pytest.raises(RecipeError, match=expected):
        part("encoder", "timm", backbone="convit_tiny").build(vgx.ImageSpec((32, 64)), FLAT)


@pytest.mark.parametrize(
    ("kind", "name", "fields", "image", "expected"),
    [
        ("encoder", "conv", {}, (18, 32), r"18 x 32 pixels can't be .* image.size=\[16,32\], or"),
        ("encoder", "conv", {}, (32, 18), r"32 x 18 pixels can't be .* image.size=\[32,16\], or"),
        ("encoder", "conv", {}, (2, 18), r"2 x 18 pixels can't be .* image.size=\[4,16\], or"),
        ("encoder", "conv", {}, (18, 17), "18 x 17 pixels can't be .* image.size=16, or"),
        ("discriminator", "dcgan", {"widths": [1] * 5}, (64, 16), "of 64 x 16 pixels.* at most 4 "),
        ("discriminator", "residual", {"widths": [1] * 5}, (16, 64), "16 x 64 pixels.* at most 4 "),
        ("discriminator", "patchgan", {}, (64, 16), "64 x 16 pixels leave no patch after 3"),
        (
            "discriminator",
            "multi-scale",
            {"inner": "patchgan", "scales": 4},
            (64, 16),
            "they leave less than 4 of 64 x 16 pixels; give at most 3",
        ),
    ],
)
def test_a_message_has_height_and_width_and_what_fits(kind, name, fields, image, expected):
    chosen = part(kind, name, **({"widths": [4, 6]} if name == "conv" else fields))
    given = (vgx.ImageSpec(image), FLAT)
    with pytest.raises(RecipeError, match=expected):
        chosen.build(*given)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 4, 8), r"32 x 16 pixels 2 times to 8x4, .*\[3, 4, 8\].* latent=\[3,8,4\]$"),
        ((3, 16, 8), r"latent=\[3,8,4\], or 1 widths$"),
        ((3, 8, 8), r"latent=\[3,8,4\]$"),
    ],
)
def test_a_latent_of_other_proportions_is_refused_with_one_that_fits(shape, expected):
    with pytest.raises(RecipeError, match=expected):
        part("encoder", "residual", widths=[4, 6]).build(TALL, vgx.LatentSpec(shape))
    with pytest.raises(RecipeError, match=expected):
        part("decoder", "residual", widths=[6, 4]).build(vgx.LatentSpec(shape), TALL)


# --- augmentations -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("angle", [7.0, -10.0, 90.0])
@pytest.mark.parametrize("size", [(12, 20), (20, 12)])
def test_a_rotation_is_torchvisions_and_stretches_nothing(mode, angle, size):
    images = random_images(3, 3, *size)
    ours = part("augmentation", "rotation", interpolation=mode).rotate(
        images, torch.full((3,), angle)
    )
    assert (ours - rotate(images, angle, InterpolationMode(mode), fill=[0.0])).abs().max() < 1e-4


def test_a_hole_and_a_shift_have_the_proportions_of_the_image():
    """Of 12 x 20 pixels a hole of a half has 6 x 10, unless it reaches beyond the edge."""
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(400, 1, 12, 20)
    holes = part("augmentation", "cutout").build(WIDE)(ones, generator)[:, 0] == 0
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert (rows.max().item(), columns.max().item()) == (6, 10)
    shifted = part("augmentation", "translation", ratio=0.5).build(WIDE)(ones, generator)[:, 0] == 0
    assert shifted.all(2).sum(1).max() == 6
    assert shifted.all(1).sum(1).max() == 10


def test_colours_change_and_alpha_stays():
    images = random_images(6, 4, 8, 12)
    change = part("augmentation", "color-jitter", hue=0.3)
    rgba, rgb = (
        change.build(vgx.ImageSpec((8, 12), n))(images[:, :n], torch.Generator().manual_seed(1))
        for n in (4, 3)
    )
    assert torch.equal(rgba[:, :3], rgb)
    assert torch.equal(rgba[:, 3], images[:, 3])
    assert not torch.equal(rgb, images[:, :3])


# --- metrics and features ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(10, 99), (99, 10)])
def test_windows_are_compared_with_the_smaller_side(size):
    expected = "a window has 11 pixels a side, an image 10"
    assert part("metric", "ssim").why_not(vgx.ImageSpec(size), 9, 9) == expected
    expected = "scales: 3 needs 44 pixels a side, an image has 10"
    assert part("metric", "ms-ssim").why_not(vgx.ImageSpec(size), 9, 9) == expected
    step = full_step(vgx.ImageSpec(size))
    with pytest.raises(RecipeError, match="images of 10 pixels are smaller than a window"):
        part("loss", "ssim").generator(step)
    with pytest.raises(RecipeError, match="needs images of 44 pixels, not 10"):
        part("loss", "ms-ssim").generator(step)


def test_perceptual_windows_are_half_as_high_and_half_as_wide():
    """Windows of 6 x 10 pixels begin in rows 0, 3, 6 and columns 0, 5, 10 of 12 x 20."""
    real, fake = random_images(2, 2, 4, 12, 20)
    image = vgx.ImageSpec((12, 20), 4)
    network = part("features", "random-conv").build(vgx.ImageSpec((6, 10), 4))
    total = 0.0
    for top in (0, 3, 6):
        for left in (0, 5, 10):
            one, two = (
                network(x[:, :, top : top + 6, left : left + 10]).numpy() for x in (real, fake)
            )
            one, two = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (one, two))
            total += ((one - two) ** 2).sum(1).mean()
    state = Perceptual().build(image)
    state.update(real, fake)
    assert state.compute()["perceptual"] == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_networks_of_rgb_images_say_so_before_they_are_fetched(channels):
    image = vgx.ImageSpec((16, 32), channels)
    expected = f"trained with RGB images, and these have {channels} channels"
    for name in ("inception", "timm"):
        with pytest.raises(RecipeError, match=f"features {name}: .*{expected}"):
            part("features", name).build(image)
    for name in ("fid", "kid"):
        with pytest.raises(RecipeError, match=expected):
            part("metric", name).build(image)
    loss = part("loss", "perceptual", backbone="test_resnet").build(image, FLAT)
    with pytest.raises(RecipeError, match=f"RGB or grey images, and these have {channels} "):
        loss.generator(full_step(image))


# --- drawn faces ---------------------------------------------------------------------------------


def test_a_face_is_in_the_middle_and_not_stretched():
    for index in range(4):
        factors = draw_factors(0, index)
        square = np.asarray(draw_face(factors, 32, 32))
        assert (np.asarray(draw_face(factors, 32, 74))[:, 21:53] == square).all()
        tall = np.asarray(draw_face(factors, 64, 32))
        # Gradients of hair and background are those of the whole sheet; mouth and chin have none.
        assert (tall[16 + 20 : 16 + 26, 12:20] == square[20:26, 12:20]).all()
        background = tall[0, 0].astype(int)
        assert (abs(tall[63, 10:22].astype(int) - background).sum(1) > 30).all()  # the body


def test_faces_are_drawn_at_height_and_width():
    faces = DrawnFaces(count=3).build(vgx.ImageSpec((48, 96)))
    assert faces[1].size == (96, 48)
    assert faces.fingerprint == "drawn-faces version=1 seed=0 count=3 size=48x96"
    assert DrawnFaces(count=3).build(vgx.ImageSpec((96, 48))).fingerprint != faces.fingerprint
