"""CutMix of pixel logits: masks and values by loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from steps import batches

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.testing import full_step
from vgx_builtin.losses.cutmix import masks

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def loss(**fields):
    return vgx.discover().part("loss", "cutmix-consistency")(**fields)


def authors_mask(height, width, share, y, x, other):
    """`CutMix` of the authors' program, with its draws as numbers in [0, 1)."""
    r = math.sqrt(share)  # they draw lam = 1 - share
    w, h, x, y = int(width * r), int(height * r), int(width * x), int(height * y)
    mask = [[1.0] * width for _ in range(height)]
    for i in range(max(y - h // 2, 0), min(y + h // 2, height)):
        for j in range(max(x - w // 2, 0), min(x + w // 2, width)):
            mask[i][j] = 0.0
    if other >= 0.5:
        mask = [[1 - value for value in row] for row in mask]
    return torch.tensor(mask)


def draws(n, generator):
    return torch.empty(4, n).uniform_(generator=generator).T.tolist()


def test_a_mask_is_that_of_the_authors_program():
    given = masks(torch.zeros(200, 3, 9, 14), rng.generator(0, "masks"))
    assert given.shape == (200, 1, 9, 14)
    wanted = [authors_mask(9, 14, *each) for each in draws(200, rng.generator(0, "masks"))]
    assert torch.equal(given[:, 0], torch.stack(wanted))
    assert {*given.unique().tolist()} == {0.0, 1.0}
    assert given.mean().item() == pytest.approx(0.5, abs=0.1)


WEIGHT = torch.tensor([0.5, -2.0, 3.0]).view(3, 1, 1)


def pixelwise(images):
    """A discriminator that is no mean of its inputs: a square for each pixel, a mean for all."""
    pixels = ((images * WEIGHT).sum(1, keepdim=True)) ** 2 - 1  # [N, 1, H, W]
    whole = images.mean((1, 2, 3), keepdim=True).expand_as(pixels)
    return vgx.Score(torch.cat([whole, pixels], 2))


def step():
    at = full_step()  # of 8 images, with two kinds of fakes
    scores = {"real_score": pixelwise(at.real), "fake_score": pixelwise(at.fake)}
    return at.but(discriminator=pixelwise, **scores)


@pytest.mark.parametrize("fakes", ["none", "bce", "hinge"])
def test_mixed_images_have_mixed_logits(fakes):
    at, total, judged = step(), 0.0, 0.0
    height, width = 16, 16
    for index, each in enumerate(draws(16, at.rng("cutmix"))):
        mask = authors_mask(height, width, *each)
        real, fake = at.real[index % 8], at.fake[index]
        mixed = torch.where(mask == 1, real, fake)
        of_mixed = pixelwise(mixed[None]).logits[0, 0, height:]
        of_real = pixelwise(real[None]).logits[0, 0, height:]
        of_fake = pixelwise(fake[None]).logits[0, 0, height:]
        whole = mixed.mean().item()
        for i in range(height):
            for j in range(width):
                own = of_mixed[i, j].item()
                wanted = of_real if mask[i, j] == 1 else of_fake
                total += (own - wanted[i, j].item()) ** 2
                sign = 1 if mask[i, j] == 1 else -1
                if fakes == "bce":
                    judged += math.log1p(math.exp(-sign * own)) + math.log1p(math.exp(whole))
                if fakes == "hinge":
                    judged += max(0, 1 - sign * own) + max(0, 1 + whole)
    pixels = 16 * height * width
    # A square of each pixel alone: the mixed image has the mixed logits.
    assert total == pytest.approx(0, abs=1e-6)
    value = loss(fakes=fakes).discriminator(at).item()
    assert value == pytest.approx((total + judged / 2) / pixels, rel=1e-4, abs=1e-6)


def blurred(images):
    """The same, where each pixel also sees its neighbours: mixing changes its logits."""
    return pixelwise(torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1))


def test_where_pixels_see_their_neighbours_the_borders_cost():
    at = step().but(discriminator=blurred)
    at = at.but(real_score=blurred(at.real), fake_score=blurred(at.fake))
    total = 0.0
    for index, each in enumerate(draws(16, at.rng("cutmix"))):
        mask = authors_mask(16, 16, *each)
        real, fake = at.real[index % 8], at.fake[index]
        logits = [
            blurred(image[None]).logits[0, 0, 16:]
            for image in (torch.where(mask == 1, real, fake), real, fake)
        ]
        for i in range(16):
            for j in range(16):
                mixed, of_real, of_fake = (each[i, j].item() for each in logits)
                total += (mixed - (of_real if mask[i, j] == 1 else of_fake)) ** 2
    value = loss().discriminator(at)
    assert value.item() == pytest.approx(total / (16 * 256), rel=1e-4)
    assert value.item() > 0.01


@pytest.mark.slow
def test_it_trains_the_unet_alone_and_needs_pixels():
    changes = {"losses": ["hinge", "l1", "cutmix-consistency"], "train.fakes": ["recon", "prior"]}
    unet = {"discriminator": {"type": "unet", "widths": [4, 8]}}
    engine = Engine(vgx.load_recipe(TINY, {**changes, **unet}), steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = {flow.label: flow.norms for flow in examine(engine, vgx.discover(), Batch(real)).flows}
    assert flows["cutmix-consistency"]["discriminator"] > 0
    assert flows["cutmix-consistency"]["decoder"] is None
    assert engine.step(0, batches(real))["cutmix-consistency"] > 0
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    with pytest.raises(RecipeError, match="needs a logit for each pixel, which type: unet gives"):
        examine(engine, vgx.discover(), Batch(real))
