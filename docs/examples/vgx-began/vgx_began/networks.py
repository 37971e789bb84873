"""The modules. Only `build` imports this file, so listing the parts does not load torch.

Letters: B images, C channels, H x W pixels, n the width, h x w the smallest maps, Z latents.
"""

import itertools

import torch
import vgx
from torch import nn

SMALLEST = 8  # the least side of the smallest maps


def halvings(image: vgx.ImageSpec) -> int:
    """Return how often both sides of an image can be halved."""
    count, side = 0, min(image.height, image.width)
    while side >> (count + 1) >= SMALLEST:
        count += 1
    return count


def smallest(image: vgx.ImageSpec) -> tuple[int, int]:
    """Return the size h x w of maps that become at least as large as the image when doubled."""
    factor = 2 ** halvings(image)
    return -(-image.height // factor), -(-image.width // factor)


def convolutions(*channels: int) -> list[nn.Module]:
    """Return convolutions of 3 x 3 from each number of channels to the next, each with an ELU."""
    pairs = itertools.pairwise(channels)
    return [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ELU())]


class Decoder(nn.Module):
    """Latents [B, *Z] -> [B, C, H, W] of any real values."""

    def __init__(self, latents: int, width: int, image: vgx.ImageSpec):
        super().__init__()
        self.size, self.start = (image.height, image.width), (width, *smallest(image))
        self.linear = nn.Linear(latents, width * self.start[1] * self.start[2])
        layers = convolutions(width, width, width)
        for _ in range(halvings(image)):
            layers += [nn.Upsample(scale_factor=2), *convolutions(width, width, width)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, image.channels, 3, padding=1))

    def forward(self, z):
        maps = self.linear(z.flatten(1)).unflatten(1, self.start)  # [B, n, h, w]
        return self.layers(maps)[..., : self.size[0], : self.size[1]]  # [B, C, H, W]


class Autoencoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> Score: minus the error of their reconstruction."""

    def __init__(self, image: vgx.ImageSpec, width: int, hidden: int):
        super().__init__()
        layers = convolutions(image.channels, width, width, width)
        for level in range(1, halvings(image) + 1):
            old, new = level * width, (level + 1) * width
            layers += [nn.Conv2d(old, new, 3, stride=2, padding=1), nn.ELU()]
            layers += convolutions(new, new, new)
        self.encoder = nn.Sequential(*layers, nn.Flatten())
        pixels = smallest(image)
        self.linear = nn.Linear((halvings(image) + 1) * width * pixels[0] * pixels[1], hidden)
        self.decoder = Decoder(hidden, width, image)

    def forward(self, images):
        values = 2 * images - 1  # [B, C, H, W] in [-1, 1]
        code = self.linear(self.encoder(values))  # [B, hidden]
        error = (values - self.decoder(code)).abs().flatten(1).mean(1, keepdim=True)  # [B, 1]
        return vgx.Score(-error, (code,))


class Equilibrium(nn.Module):
    """The terms of both players, and the balance k between them."""

    def __init__(self, diversity: float, rate: float):
        super().__init__()
        self.diversity, self.rate = diversity, rate
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("measure", torch.zeros(()))

    def generator(self, step: vgx.Step):
        """Return a scalar >= 0: how badly fakes are reconstructed."""
        return -step.fake_score.logits.mean()

    def discriminator(self, step: vgx.Step):
        """Return a scalar of any sign, and move k."""
        real, fake = -step.real_score.logits.mean(), -step.fake_score.logits.mean()
        value = real - self.k.clone() * fake  # a copy: k moves before the gradient is taken
        with torch.no_grad():
            real, fake = vgx.mean_over_processes(torch.stack([real, fake]))  # of all images
            off = self.diversity * real - fake
            self.k.add_(self.rate * off).clamp_(0, 1)
            self.measure.copy_(real + off.abs())
        return value

    def figures(self):
        """Return k, and the measure of convergence of section 3.4.1: both are logged."""
        return {"k": self.k.item(), "measure": self.measure.item()}
