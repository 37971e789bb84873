"""The author's kit on images that are not square: a part takes them, or says that it does not."""

from __future__ import annotations

import pytest
from torch import nn

import vgx
from vgx.testing import check_part, full_step


def layers(latent, image, height, width):
    return nn.Sequential(
        nn.Linear(latent.shape[0], image.channels * height * width),
        nn.Unflatten(1, (image.channels, height, width)),
    )


class Whole(vgx.Decoder, type="whole"):
    """One linear layer to an image of any height and width."""

    def build(self, latent, image):
        return layers(latent, image, image.height, image.width)


class Declared(vgx.Decoder, type="declared"):
    """One linear layer to a square image, which refuses all others."""

    def build(self, latent, image):
        if image.height != image.width:
            raise vgx.RecipeError("decoder declared: only square images; write image.size=16")
        return layers(latent, image, image.height, image.height)


class Number(vgx.Decoder, type="number"):
    """One linear layer to an image whose size must be one number."""

    def build(self, latent, image):
        side = image.size // 2 * 2
        return layers(latent, image, side, side)


class Square(vgx.Decoder, type="square"):
    """One linear layer to an image as wide as it is high."""

    def build(self, latent, image):
        return layers(latent, image, image.height, image.height)


class Sheared(vgx.Augmentation, type="sheared"):
    """Images with height and width exchanged."""

    def build(self, image):
        return lambda images, generator: images.transpose(2, 3) * 1.0


class Squares(vgx.Metric, type="squares"):
    """A mean difference, of square images only."""

    pairs = True

    def build(self, image):
        assert image.height == image.width
        return Sum()

    def why_not(self, image, real, generated):
        return "" if image.height == image.width else "it compares square images"


class Sum:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, real, fake):
        self.sum += (real - fake).abs().mean((1, 2, 3)).sum().item()
        self.count += len(real)

    def compute(self):
        return {"squares": self.sum / self.count}


@pytest.mark.parametrize("part", [Whole(), Declared(), Squares()], ids=lambda part: part.type)
def test_a_part_that_takes_them_or_says_that_it_does_not_passes(part):
    check_part(part)


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (Number(), r"it raises TypeError: unsupported operand type\(s\) for //: 'tuple' and 'int'"),
        (Square(), r"its logits: shape \(8, 3, 16, 16\), not \(8, 3, 16, 32\)"),
        (Sheared(), r"what it gives: shape \(8, 3, 32, 16\), not \(8, 3, 16, 32\)"),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_a_part_that_fails_with_them_is_told_both_ways_out(part, fault):
    expected = rf"images of 16 x 32 pixels \(height x width\): {fault}; use image.height and image"
    with pytest.raises(AssertionError, match=expected) as failed:
        check_part(part)
    assert "or raise vgx.RecipeError for such images" in str(failed.value)


def test_a_step_or_an_image_that_is_given_is_the_only_one():
    check_part(Square(), step=full_step())
    with pytest.raises(AssertionError, match=r"shape \(8, 1, 8, 8\), not \(8, 1, 8, 24\)"):
        check_part(Square(), image=vgx.ImageSpec((8, 24), channels=1))
