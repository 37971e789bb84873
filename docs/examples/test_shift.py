import torch
import vgx

from shift import Shift


def shift(images, seed):
    generator = torch.Generator().manual_seed(seed)
    return Shift(pixels=2).build(vgx.ImageSpec(size=8))(images, generator)


def test_each_image_has_its_own_shift_and_keeps_shape_and_range():
    images = torch.rand(1, 3, 8, 8).repeat(16, 1, 1, 1)
    shifted = shift(images, seed=0)
    assert shifted.shape == images.shape
    assert 0 <= shifted.min() <= shifted.max() <= 1
    assert len({image.numpy().tobytes() for image in shifted}) > 1


def test_the_shifts_depend_on_the_generator_alone():
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(shift(images, seed=1), shift(images, seed=1))
    assert not torch.equal(shift(images, seed=1), shift(images, seed=2))
