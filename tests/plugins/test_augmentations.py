"""Augmentations against torchvision's, picture by picture."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

import vgx

IMAGE = vgx.ImageSpec(size=16)


def part(name, **settings):
    return vgx.discover().part("augmentation", name)(**settings)


def batch(n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def chance(seed=0):
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
    edge = part("rotation", fill="edge", degrees=45.0).build(IMAGE)(images, chance())
    assert torch.allclose(edge, images)
    black = part("rotation", degrees=45.0).build(IMAGE)(images, chance())
    assert black.min() == 0


def test_every_picture_draws_its_own_angle_within_the_limits():
    turned = []
    rotation = part("rotation", degrees=10.0)
    original = rotation.rotate
    object.__setattr__(rotation, "rotate", lambda i, d: turned.append(d) or original(i, d))
    rotation.build(IMAGE)(batch(512), chance())
    (angles,) = turned
    assert len(angles.unique()) > 500
    assert angles.abs().max() <= 10
    assert angles.min() < -9
    assert angles.max() > 9


def test_flip_mirrors_about_half_of_the_pictures():
    images = batch(400)
    flipped = part("horizontal-flip").build(IMAGE)(images, chance())
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    )
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images, strict=True)])
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(("p", "mirrored"), [(0.0, False), (1.0, True)])
def test_flip_never_and_always(p, mirrored):
    images = batch()
    flipped = part("horizontal-flip", p=p).build(IMAGE)(images, chance())
    assert torch.equal(flipped, images.flip(-1) if mirrored else images)


@pytest.mark.parametrize("name", ["horizontal-flip", "rotation"])
def test_the_generator_alone_decides(name):
    change = part(name).build(IMAGE)
    one, same, other = (change(batch(), chance(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (8, 3, 16, 16)
    assert one.min() >= 0
    assert one.max() <= 1
