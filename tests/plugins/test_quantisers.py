"""Encoders whose latents are vectors of a codebook: indices, and what each quantiser computes."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

import vgx
from vgx.testing import check_part

IMAGE = vgx.ImageSpec(size=8)


class Means(vgx.Encoder, type="means"):
    """The mean of each channel of 2x2 pixels, or of all pixels for a flat latent."""

    def build(self, image, latent):
        return MeansNet(latent.shape)


class MeansNet(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.flat = len(shape) == 1
        self.layer = nn.Conv2d(3, shape[0], 1, bias=False)

    def forward(self, images):
        means = nn.functional.avg_pool2d(self.layer(images - 0.5), 8 if self.flat else 2)
        means = means.flatten(1) if self.flat else means
        return vgx.Gaussian(means, torch.zeros_like(means))


def part(name, **settings):
    return vgx.discover().part("encoder", name)(inner=Means(), **settings)


def random_images(n=3, seed=0):
    """Each has a colour, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(n, 3, 1, 1, generator=generator)
    return (colours + torch.rand(n, 3, 8, 8, generator=generator)) / 2


QUANTISERS = {
    "vq": ("vector-quantised", {"codes": 6}),
    "normalised": ("vector-quantised", {"codes": 6, "normalised": True}),
}


@pytest.mark.parametrize("latent", [(4,), (4, 4, 4)], ids=["flat", "spatial"])
@pytest.mark.parametrize("name", QUANTISERS)
def test_indices_give_the_latents_again(name, latent):
    kind, settings = QUANTISERS[name]
    encoder = part(kind, **settings).build(IMAGE, vgx.LatentSpec(latent)).eval()
    assert isinstance(encoder, vgx.Quantising)
    posterior = encoder(random_images(40))
    assert isinstance(posterior, vgx.Indexed)
    assert posterior.indices.shape[: len(latent)] == (40, *latent[1:])
    assert posterior.indices.dtype == torch.int64
    assert torch.equal(encoder.from_indices(posterior.indices), posterior.mean)
    assert len(posterior.mean.movedim(1, -1).reshape(-1, 4).unique(dim=0)) > 1


class Broken(vgx.Encoder, type="broken"):
    """Round the mean of an image to one of two codes, wrongly."""

    wrong: ClassVar[str] = ""

    def build(self, image, latent):
        return BrokenNet(latent.shape[0], self.wrong)


class BrokenNet(nn.Module):
    codes = 2

    def __init__(self, size, wrong):
        super().__init__()
        self.layer, self.size, self.wrong = nn.Linear(3, size), size, wrong

    def forward(self, images):
        value = self.layer(images.mean((2, 3)))
        indices = (value[:, 0] > value[:, 0].mean() if self.wrong == "" else value[:, 0] > 0).long()
        codes = self.from_indices(indices) + (self.wrong == "vectors")
        indices = {"far": indices + 1, "shape": indices[:1], "floats": indices.float()}.get(
            self.wrong, indices
        )
        return Rounded(value + (codes - value).detach(), None if self.wrong == "none" else indices)

    def from_indices(self, indices):
        return indices[:, None].expand(-1, self.size).float()


class Rounded:
    def __init__(self, mean, indices):
        self.mean, self.indices = mean, indices

    def sample(self, generator):
        return self.mean


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("none", "no integers `indices`"),
        ("floats", "no integers `indices`"),
        ("shape", r"indices are \(1,\), not \(\d+,\) or that with the levels"),
        ("far", "indices leave 0 to 1"),
        ("vectors", "is not the posterior's mean"),
    ],
)
def test_the_kit_compares_indices_with_latents(monkeypatch, wrong, message):
    monkeypatch.setattr(Broken, "wrong", wrong)
    monkeypatch.setattr(BrokenNet, "codes", 2)
    with pytest.raises(AssertionError, match=message):
        check_part(Broken())
