import torch
import vgx

from shift import Shift


def moved(images, seed):
    generator = torch.Generator().manual_seed(seed)
    return Shift(pixels=2).build(vgx.ImageSpec(size=8))(images, generator)


def test_each_image_moves_by_itself_and_keeps_shape_and_range():
    images = torch.rand(1, 3, 8, 8).repeat(16, 1, 1, 1)
    result = moved(images, seed=0)
    assert result.shape == images.shape
    assert 0 <= result.min() <= result.max() <= 1
    assert len({image.numpy().tobytes() for image in result}) > 1


def test_the_generator_alone_decides():
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(moved(images, seed=1), moved(images, seed=1))
    assert not torch.equal(moved(images, seed=1), moved(images, seed=2))
