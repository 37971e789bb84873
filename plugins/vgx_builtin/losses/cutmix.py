"""CutMix for a discriminator that judges pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class CutmixConsistency(vgx.Loss, type="cutmix-consistency"):
    """Pixel logits of a mixed image are the mixed pixel logits: the regularisation of U-Net GANs.

    mean (D(mix(x, G, M)) - mix(D(x), D(G), M))^2 over pixels and the batch, with D the pixels'
    logits of the discriminator `unet` and mix(a, b, M) = M a + (1 - M) b (Schoenfeld et al. 2020,
    eq. 5 and 6). For each image M is 1 outside of a box and 0 inside, or the opposite with
    probability 1/2; the box has a share of the pixels that is uniform in [0, 1], and its centre is
    uniform (CutMix, Yun et al. 2019). A part of the box that lies outside of the image is cut off.

    Changed from the paper: all images of a minibatch are mixed in each step; `weight` may rise by a
    schedule, where the paper's probability of mixing does. Use it without `diff_augment`, which
    would move the mixed images and not M.
    """

    fakes: Literal["none", "bce", "hinge"] = "none"
    """Also judge the mixed images, with this loss: the whole is fake, and a pixel is what the image
    is that it comes from (as in the authors' program, with `bce`). The mean over the image's logit
    and those of the pixels, half each, is added."""

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0."""
        import torch

        fake = step.fake.detach()  # [F*B, C, H, W]
        kinds = len(fake) // len(step.real)
        real = torch.cat([step.real] * kinds)  # [F*B, C, H, W]
        mask = masks(fake, step.rng("cutmix"))  # [F*B, 1, H, W]
        mixed = step.discriminator(mask * real + (1 - mask) * fake).logits  # [F*B, 1, 2H, W]
        of_real = torch.cat([_pixels(step.real_score.logits, step)] * kinds)
        of_fake = _pixels(step.fake_score.logits, step)
        expected = mask * of_real + (1 - mask) * of_fake  # [F*B, 1, H, W]
        loss: Tensor = (_pixels(mixed, step) - expected).square().mean()
        if self.fakes == "none":
            return loss
        target = torch.cat([torch.zeros_like(mask), mask], 2)  # [F*B, 1, 2H, W]
        if self.fakes == "bce":
            return loss + torch.nn.functional.binary_cross_entropy_with_logits(mixed, target)
        return loss + (1 - (2 * target - 1) * mixed).relu().mean()


def masks(images: Tensor, generator: Generator) -> Tensor:
    """[B, 1, H, W]  A mask of zeros and ones for each image [B, C, H, W]: 1 is real."""
    height, width = images.shape[2:]
    draws = [images.new_empty(len(images), 1).uniform_(generator=generator) for _ in range(4)]
    share, y, x, other = draws  # [B, 1] each
    inside = []
    for side, place in ((height, y), (width, x)):
        half = (side * share.sqrt()).floor() // 2
        centre = (side * place).floor()
        index = images.new_ones(side).cumsum(0) - 1  # [side]
        inside.append((index >= centre - half) & (index < centre + half))  # [B, side]
    box = inside[0][:, :, None] & inside[1][:, None, :]  # [B, H, W]
    mask: Tensor = box == (other >= 0.5)[:, :, None]
    return mask[:, None].type_as(images)


def _pixels(logits: Tensor, step: vgx.Step) -> Tensor:
    """[B, 1, H, W]  The lower half of logits [B, 1, 2H, W]."""
    height, width = step.real.shape[2:]
    if tuple(logits.shape[2:]) != (2 * height, width):
        message = "needs a logit for each pixel, which type: unet gives"
        raise vgx.RecipeError(f"cutmix-consistency: the discriminator: it {message}")
    return logits[:, :, height:]
