"""Adaptive discriminator augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

import vgx

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

Group = Literal["flip", "rotate", "translate", "scale", "colour"]


class Ada(vgx.Augmentation, type="ada"):
    """Augment what the discriminator sees with a probability that follows its overfitting.

    Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data". To be used in
    `diff_augment`. Each change happens to each image with probability p, independently. With r the
    mean sign of the discriminator's logits on real images over `every` minibatches, p rises when
    r > target and falls when r < target, so fast that it could go from 0 to 1 in
    `thousands` * 1,000 images; it is saved with the run. Of several discriminators, r is the mean
    over those that judge images or pairs.

    The changes, in the paper's order (appendix B): x-flip; rotation by a multiple of 90 degrees, of
    180 where images are not square; translation by whole pixels up to 1/8 of each side; scaling by
    2^N(0, 0.2^2); brightness plus N(0, 0.1^2); contrast about 0.5 times 2^N(0, 0.5^2); saturation
    times 2^N(0, 1). What moves in from outside is the image reflected at its edge. Left out of the
    paper's set: rotation by other angles, anisotropic scaling, fractional translation, luma flip,
    hue rotation, filters, noise and cutout; the result is clamped to [0, 1].
    """

    target: Annotated[float, Field(gt=-1, lt=1)] = 0.6
    """The mean sign of the logits on real images that p is steered to: 0 where the discriminator
    takes half of them for real, 1 where it takes all of them for real."""
    thousands: PositiveFloat = 500.0
    """Thousands of real images in which p can go from 0 to 1."""
    every: PositiveInt = 4
    """Number of minibatches whose signs are averaged before p moves."""
    most: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The largest p. Nearer to 1 the generator begins to draw augmented images (section 2.2)."""
    changes: Annotated[tuple[Group, ...], Field(min_length=1)] = (
        "flip", "rotate", "translate", "scale", "colour",
    )  # fmt: skip
    """The changes that are made, always in this order: flip, rotate, translate, scale, colour."""

    def build(self, image: vgx.ImageSpec) -> Callable[[Tensor, Generator], Tensor]:
        """Make a module: images [B, C, H, W] -> the same shape. Its buffer `p` is saved."""
        from vgx_builtin.augmentations.adaptive import Adaptive

        del image
        return Adaptive(self.target, 1000 * self.thousands, self.every, self.most, self.changes)
