"""Augmentations against torchvision's and against plain loops, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    affine,
    erase,
    horizontal_flip,
    rotate,
)

import vgx
from vgx.testing import full_step
from vgx_builtin.augmentations.adaptive import scale

IMAGE = vgx.ImageSpec(size=16)


def part(name, **settings):
    return vgx.discover().part("augmentation", name)(**settings)


def batch(n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("angle", [0.0, 7.0, -10.0, 90.0])
def test_rotation_is_torchvisions(mode, fill, angle):
    images = batch()
    ours = part("rotation", interpolation=mode, fill=fill).rotate(images, torch.full((8,), angle))
    theirs = rotate(images, angle, InterpolationMode(mode), fill=fill)
    assert (ours - theirs).abs().max() < 1e-5


def test_edge_fill_brings_in_no_new_value():
    images = torch.full((4, 3, 16, 16), 0.7)
    edge = part("rotation", fill="edge", degrees=45.0).build(IMAGE)(images, generator())
    assert torch.allclose(edge, images)
    black = part("rotation", degrees=45.0).build(IMAGE)(images, generator())
    assert black.min() == 0


def test_every_image_draws_its_own_angle_within_the_limits():
    turned = []
    rotation = part("rotation", degrees=10.0)
    original = rotation.rotate
    object.__setattr__(rotation, "rotate", lambda i, d: turned.append(d) or original(i, d))
    rotation.build(IMAGE)(batch(512), generator())
    (angles,) = turned
    assert len(angles.unique()) > 500
    assert angles.abs().max() <= 10
    assert angles.min() < -9
    assert angles.max() > 9


def test_flip_mirrors_about_half_of_the_images():
    images = batch(400)
    flipped = part("horizontal-flip").build(IMAGE)(images, generator())
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    )
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images, strict=True)])
    assert (mirrored ^ same).all()
    theirs = torch.stack([horizontal_flip(image) for image in images])
    assert torch.equal(flipped, theirs.where(mirrored[:, None, None, None], images))
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(("p", "mirrored"), [(0.0, False), (1.0, True)])
def test_flip_never_and_always(p, mirrored):
    images = batch()
    flipped = part("horizontal-flip", p=p).build(IMAGE)(images, generator())
    assert torch.equal(flipped, images.flip(-1) if mirrored else images)


# --- colour --------------------------------------------------------------------------------------

# What is drawn for each image, in this order, by torch's own uniform distribution.
FACTORS = {"brightness": 0.4, "contrast": 0.7, "saturation": 1.5, "hue": 0.3}


def drawn_factors(n, settings):
    source, factors = generator(), {}
    for name, most in settings.items():
        low = -most if name == "hue" else max(0.0, 1 - most)
        high = most if name == "hue" else 1 + most
        factors[name] = torch.empty(n).uniform_(low, high, generator=source).tolist()
    return factors


@pytest.mark.parametrize("only", [None, "brightness", "contrast", "saturation", "hue"])
def test_colours_are_torchvisions_with_each_images_own_factors(only):
    settings = {name: value if only in (None, name) else 0.0 for name, value in FACTORS.items()}
    images = batch(32)
    ours = part("color-jitter", **settings).build(IMAGE)(images, generator())
    drawn = drawn_factors(32, settings)
    for image, changed, b, c, s, h in zip(images, ours, *drawn.values(), strict=True):
        theirs = adjust_contrast(adjust_brightness(image, b), c)
        theirs = adjust_hue(adjust_saturation(theirs, s), h)
        # torchvision's weights of grey are rounded to 0.2989, 0.587 and 0.114.
        assert (changed - theirs).abs().max() < 1e-3
    assert (ours - images).abs().amax((1, 2, 3)).min() > 1e-3


def test_grey_images_have_no_saturation_and_no_hue():
    images = batch()[:, :1]
    spec = vgx.ImageSpec(size=16, channels=1)
    ours = part("color-jitter", **FACTORS).build(spec)(images, generator())
    drawn = drawn_factors(8, FACTORS)
    for image, changed, b, c in zip(
        images, ours, drawn["brightness"], drawn["contrast"], strict=True
    ):
        assert torch.allclose(changed, adjust_contrast(adjust_brightness(image, b), c), atol=1e-6)


# --- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "most"), [(0.125, 2), (0.1, 2), (0.0, 0), (1.0, 16)])
def test_translation_moves_by_whole_pixels_and_fills(ratio, most):
    images = batch(300)
    ours = part("translation", ratio=ratio, fill=0.25).build(IMAGE)(images, generator())
    source = generator()
    down, right = (
        torch.randint(-most, most + 1, (300, 1), generator=source).flatten().tolist()
        for _ in range(2)
    )
    assert (min(down), max(down)) == (min(right), max(right)) == (-most, most)
    for image, moved, dy, dx in zip(images, ours, down, right, strict=True):
        expected = torch.full_like(image, 0.25)
        for y in range(max(dy, 0), min(16 + dy, 16)):
            for x in range(max(dx, 0), min(16 + dx, 16)):
                expected[:, y, x] = image[:, y - dy, x - dx]
        assert torch.equal(moved, expected)
        theirs = affine(image, 0.0, [dx, dy], 1.0, [0.0, 0.0], fill=[0.25] * 3)
        assert torch.equal(moved, theirs)


@pytest.mark.parametrize(("ratio", "side"), [(0.5, 8), (0.3, 5), (0.0, 0)])
def test_cutout_covers_one_square_that_may_reach_over_the_edge(ratio, side):
    images = batch(400)
    ours = part("cutout", ratio=ratio, fill=0.5).build(IMAGE)(images, generator())
    heights, firsts = [], []
    for image, covered in zip(images, ours, strict=True):
        hole = (covered == 0.5).all(0)
        assert torch.equal(covered[:, ~hole], image[:, ~hole])
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        if side:
            place = int(rows[0]), int(columns[0]), len(rows), len(columns)
            assert torch.equal(covered, erase(image, *place, torch.tensor(0.5)))
        assert hole.sum() == len(rows) * len(columns)  # a rectangle,
        for lines in (rows, columns):
            assert (lines.diff() == 1).all()
            if len(lines) < side:  # cut off at an edge only
                assert 0 in lines or 15 in lines
        heights.append(len(rows))
        firsts += rows[:1].tolist()
    # Centres lie anywhere from one edge to the other, so at least half of the square is seen.
    assert (min(heights), max(heights)) == ((side + 1) // 2, side)
    assert set(firsts) == (set(range(17 - (side + 1) // 2)) if side else set())


# --- all of them ---------------------------------------------------------------------------------

EVERY = {
    "horizontal-flip": {},
    "rotation": {"interpolation": "bilinear"},
    "color-jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "translation": {},
    "cutout": {},
}


def test_every_augmentation_in_the_box_is_among_them():
    offered = vgx.discover().offers("augmentation")
    assert {p.type for plugin, p in offered if plugin.name == "builtin"} == {*EVERY, "ada"}


@pytest.mark.parametrize("name", EVERY)
def test_the_generator_alone_decides(name):
    change = part(name).build(IMAGE)
    one, same, other = (change(batch(), generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (8, 3, 16, 16)
    assert one.min() >= 0
    assert one.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_passes_through(name, channels):
    """Against differences in float64; away from 0 and 1, where results are cut off."""
    change = part(name, **EVERY[name]).build(vgx.ImageSpec(size=6, channels=channels))
    images = 0.3 + 0.2 * torch.rand(3, channels, 6, 6, generator=generator(4), dtype=torch.float64)
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: change(given, generator()), images)
    (grad,) = torch.autograd.grad(change(images, generator()).sum(), images)
    assert (grad != 0).any((1, 2, 3)).all()  # of every image


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_the_gradient_of_grey_images_is_finite(colour):
    images = torch.full((4, 3, 6, 6), colour, requires_grad=True)
    changed = part("color-jitter", hue=0.5).build(IMAGE)(images, generator())
    (grad,) = torch.autograd.grad(changed.sum(), images)
    assert grad.isfinite().all()


# --- ada -----------------------------------------------------------------------------------------


def ada(p=None, **settings):
    built = part("ada", **settings).build(IMAGE)
    if p is not None:
        built.p.fill_(p)
    return built


def test_the_probability_follows_the_signs_as_in_the_authors_program():
    """Their training loop, in numpy: `adjust` after every 4 minibatches."""
    draws = np.random.default_rng(0)
    # First the discriminator is sure of all real images, then of none.
    logits = draws.normal(np.repeat([3.0, -3.0], 40)[:, None], 1, (80, 32)).astype(np.float32)
    built, p, signs = ada(thousands=1.0, most=0.5), 0.0, []
    for number, some in enumerate(logits):
        step = full_step().but(real_score=vgx.Score(torch.from_numpy(some)[:, None]))
        built.observe(step)
        signs.append(np.sign(some).mean())
        if number % 4 == 3:
            p = np.clip(p + np.sign(np.mean(signs) - 0.6) * (32 * 4) / (1 * 1000), 0, 0.5)
            signs = []
        assert built.p.item() == pytest.approx(p, abs=1e-6)
        if number == 39:
            assert p == 0.5
    assert p == 0


def test_ada_changes_nothing_at_first_and_all_images_at_last():
    images = batch(64)
    assert torch.equal(ada()(images, generator()), images)
    changed = ada(1.0)(images, generator())
    assert (changed - images).flatten(1).abs().amax(1).min() > 0.01
    half = ada(0.5, changes=("colour",))(images, generator())
    moved = (half - images).flatten(1).abs().amax(1) > 0
    assert 0.25 < moved.float().mean() < 0.75


@pytest.mark.parametrize("change", ["flip", "rotate", "translate"])
def test_exact_changes_of_ada_are_those_of_numpy(change):
    images = batch(48)
    changed = ada(1.0, changes=(change,))(images, generator()).numpy()
    found = set()
    for image, new in zip(images.numpy(), changed, strict=True):
        wanted = {
            "flip": {0: image, 1: image[:, :, ::-1]},
            "rotate": {k: np.rot90(image, k, (1, 2)) for k in range(4)},
            "translate": {
                (y, x): np.pad(image, [(0, 0), (2, 2), (2, 2)], "reflect")[
                    :, 2 - y : 18 - y, 2 - x : 18 - x
                ]
                for y in range(-2, 3)
                for x in range(-2, 3)
            },
        }[change]
        same = [key for key, array in wanted.items() if np.array_equal(array, new)]
        assert len(same) == 1
        found |= {*same}
    assert len(found) >= {"flip": 2, "rotate": 4, "translate": 15}[change]


def test_ada_scales_about_the_middle():
    """A scaled ramp is a ramp of another slope, but where it is reflected."""
    ramp = torch.linspace(0.25, 0.75, 16).expand(64, 1, 16, 16).contiguous()
    built = part("ada", changes=("scale",)).build(vgx.ImageSpec(size=16, channels=1))
    built.p.fill_(1)
    changed = built(ramp, generator())
    slope = (changed[:, 0, 8, 9] - changed[:, 0, 8, 6]) / (ramp[0, 0, 8, 9] - ramp[0, 0, 8, 6])
    assert torch.allclose(changed[:, 0, 8, 7] + changed[:, 0, 8, 8], torch.ones(64), atol=1e-5)
    logs = -slope.log2()
    assert logs.mean().item() == pytest.approx(0, abs=3 * 0.2 / 8)
    assert logs.std().item() == pytest.approx(0.2, rel=0.25)


def test_ada_keeps_alpha_and_rotates_wide_images_by_180_degrees():
    images = torch.rand(32, 4, 8, 16)
    built = part("ada", changes=("rotate", "colour")).build(vgx.ImageSpec(size=(8, 16), channels=4))
    built.p.fill_(1)
    changed = built(images, generator())
    alpha = [images[:, 3], images[:, 3].rot90(2, (1, 2))]
    same = torch.stack([(changed[:, 3] == each).flatten(1).all(1) for each in alpha])
    assert same.any(0).all()
    assert same.any(1).all()


def test_the_gradient_of_scaled_images_has_a_gradient():
    """Penalties on slopes need it, and PyTorch's `grid_sample` does not have it in all versions."""

    def scaled(images):
        return scale(images, torch.Generator().manual_seed(2)).sin()

    images = torch.rand(2, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert not torch.equal(scaled(images), images.sin())
    assert torch.autograd.gradcheck(scaled, [images])
    assert torch.autograd.gradgradcheck(scaled, [images])


def test_ada_scales_as_grid_sample_does():
    images, size = torch.rand(64, 3, 6, 9, dtype=torch.float64), (64, 3, 6, 9)
    factor = (0.2 * torch.randn(64, 1, 1, dtype=torch.float64, generator=generator())).exp2()
    grid = F.affine_grid(torch.eye(2, 3, dtype=torch.float64) / factor, size, align_corners=False)
    wanted = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.allclose(scale(images, generator()), wanted, rtol=0, atol=1e-12)
    assert not torch.allclose(images, wanted, atol=0.1)
