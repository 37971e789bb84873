"""Changes of images that happen with a probability, and what steers the probability.

Letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Generator, Tensor, nn

import vgx

SHIFT = 0.125  # of each side, the largest translation
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R 601, as in the other colour augmentations


class Adaptive(nn.Module):
    """Changes with probability `p`, which follows the discriminator's logits on real images."""

    p: Tensor
    signs: Tensor  # sum of the mean signs of minibatches since p moved
    seen: Tensor  # [2]  minibatches and images since p moved

    def __init__(
        self, target: float, images: float, every: int, most: float, changes: Collection[str]
    ) -> None:
        super().__init__()
        self.target, self.images, self.every, self.most = target, images, every, most
        self.changes = [change for name, change in CHANGES.items() if name in changes]
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> the same shape; the gradient passes through."""
        for change in self.changes:
            happens = uniform(images, generator) < self.p  # [B]
            changed = change(images, generator)  # [B, C, H, W]
            images = changed.where(happens[:, None, None, None], images)
        return images.clamp(0, 1)

    def observe(self, step: vgx.Step) -> None:
        """Count the signs of the logits on real images, and move p when it is due."""
        several = [step.about(name) for name, _ in step.views]
        seeing = [each for each in several if each.judges != "latents"] or [step]
        logits = [each.real_score.logits for each in seeing]
        self.signs += torch.stack([each.sign().mean() for each in logits]).mean()
        self.seen[0].add_(1)
        self.seen[1].add_(len(logits[0]))
        due = self.seen[0] >= self.every
        towards = (self.signs / self.seen[0] - self.target).sign()
        moved = (self.p + towards * self.seen[1] / self.images).clamp(0, self.most)
        self.p.copy_(moved.where(due, self.p))
        self.signs.mul_(~due)
        self.seen.mul_(~due)

    def figures(self) -> dict[str, float]:
        """Return the probability of now."""
        return {"p": self.p.item()}


def uniform(images: Tensor, generator: Generator) -> Tensor:
    """[B]  A draw from [0, 1) for each image."""
    return images.new_empty(len(images)).uniform_(generator=generator)


def normal(images: Tensor, generator: Generator) -> Tensor:
    """[B, 1, 1, 1]  A draw from N(0, 1) for each image."""
    return images.new_empty(len(images), 1, 1, 1).normal_(generator=generator)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image with probability 1/2."""
    mirrored = uniform(images, generator)[:, None, None, None] < 0.5  # [B, 1, 1, 1]
    return images.flip(3).where(mirrored, images)


def rotate(images: Tensor, generator: Generator) -> Tensor:
    """Rotate each image by 0, 90, 180 or 270 degrees; by 0 or 180 where it is not square."""
    turns = [1, 2, 3] if images.shape[2] == images.shape[3] else [2]
    drawn = (uniform(images, generator) * (len(turns) + 1)).floor()[:, None, None, None]
    result = images
    for number, turn in enumerate(turns):
        result = images.rot90(turn, (2, 3)).where(drawn == number + 1, result)
    return result


def translate(images: Tensor, generator: Generator) -> Tensor:
    """Shift each image by whole pixels along both axes, reflecting it at its edges."""
    for axis in (2, 3):
        size = images.shape[axis]
        most = int(size * SHIFT)
        shift = ((2 * most + 1) * uniform(images, generator)).floor() - most  # [B]
        before = images.narrow(axis, 1, most).flip(axis)
        after = images.narrow(axis, size - 1 - most, most).flip(axis)
        # No place is taken twice, so a GPU gives the same bits of the gradient each time.
        places = torch.arange(most, most + size, device=images.device) - shift[:, None].long()
        shape = (-1, 1, size, 1) if axis == 2 else (-1, 1, 1, size)
        index = places.view(shape).expand_as(images)  # [B, C, H, W]
        images = torch.cat([before, images, after], axis).gather(axis, index)
    return images


def scale(images: Tensor, generator: Generator) -> Tensor:
    """Scale each image about its middle by 2^N(0, 0.2^2)."""
    factor = (0.2 * normal(images, generator)).exp2()[..., 0]  # [B, 1, 1]
    rows, columns = (scaling(side, factor) for side in images.shape[2:])
    return rows @ images @ columns.mT


def scaling(side: int, factor: Tensor) -> Tensor:
    """[B, 1, N, N]  The matrices that scale N pixels bilinearly by factors [B, 1, 1].

    Outside of them pixels are reflected. Unlike `grid_sample`, a product of matrices has all
    derivatives in each version of PyTorch, and the same bits of them each time on a GPU.
    """
    middles = torch.arange(side, device=factor.device, dtype=factor.dtype) + 0.5  # [N]
    old = (middles - side / 2) / factor + side / 2  # [B, 1, N]
    old = side - (side - old.abs().remainder(2 * side)).abs()
    old = old.clamp(0.5, side - 0.5)
    return (1 - (old[..., None] - middles).abs()).clamp(min=0)


def colour(images: Tensor, generator: Generator) -> Tensor:
    """Change brightness, contrast and, of RGB, the saturation of each image; alpha stays."""
    colours, alpha = images, images[:, :0]
    if images.shape[1] in (3, 4):
        colours, alpha = images[:, :3], images[:, 3:]
    colours = colours + 0.1 * normal(images, generator)
    colours = 0.5 + (colours - 0.5) * (0.5 * normal(images, generator)).exp2()
    saturation = normal(images, generator).exp2()  # [B, 1, 1, 1]
    if colours.shape[1] == 3:
        weights = torch.cat([colours.new_full((1, 1, 1, 1), share) for share in GREY], 1)
        grey = (colours * weights).sum(1, keepdim=True)  # [B, 1, H, W]
        colours = grey + (colours - grey) * saturation
    return torch.cat([colours, alpha], 1)


CHANGES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "flip": flip, "rotate": rotate, "translate": translate, "scale": scale, "colour": colour,
}  # fmt: skip
