"""Samplers: where the latents come from."""

from __future__ import annotations

import pytest
import torch

import vgx
from vgx.errors import RecipeError

LATENT = vgx.LatentSpec((4,))


def draw(name, n, codes, seed=0, **settings):
    drawer = vgx.discover().part("sampler", name)(**settings).build(LATENT)
    return drawer.draw(n, codes, torch.Generator().manual_seed(seed))


def weights_of(z, codes):
    """[n, K]  The weights of a mixture of linearly independent codes."""
    return torch.linalg.lstsq(codes.T.double(), z.T.double()).solution.T


CODES = torch.eye(4)


def test_a_mixture_has_positive_weights_that_sum_to_one():
    weights = draw("weighted-mix", 200, CODES)
    assert torch.allclose(weights.sum(1), torch.ones(200))
    assert (weights >= 0).all()
    # Uniform over all weights: each anchor's mean is 1/3, its variance 2/36 (Dirichlet(1, 1, 1)).
    used = weights[:, weights.sum(0) > 0]
    assert used.shape == (200, 3)
    assert used.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert used.var(0).mean().item() == pytest.approx(2 / 36, abs=0.015)


def test_shared_anchors_are_the_same_three_and_fresh_ones_are_not():
    codes = torch.eye(50)[:, :50]
    drawer = vgx.discover().part("sampler", "weighted-mix")
    for anchors, used in (("shared", 3), ("fresh", 50)):
        made = drawer(anchors=anchors).build(vgx.LatentSpec((50,)))
        z = made.draw(300, codes, torch.Generator().manual_seed(0))
        assert ((z > 0).sum(1) == 3).all()
        assert (z.sum(0) > 0).sum() == used


def test_concentration_moves_between_single_latents_and_their_average():
    near_one = draw("weighted-mix", 200, CODES, concentration=0.01).max(1).values
    average = draw("weighted-mix", 200, CODES, concentration=1000.0).max(1).values
    assert near_one.mean() > 0.95
    assert average.mean() < 0.37


def test_too_few_latents_are_said():
    with pytest.raises(RecipeError, match="of: 5: the run has 4 latents"):
        draw("weighted-mix", 1, CODES, of=5)


def test_the_prior_is_the_standard_normal_and_does_not_look_at_the_codes():
    z = draw("prior", 5000, torch.empty(0, 4))
    assert z.shape == (5000, 4)
    assert z.mean().abs() < 0.03
    assert z.std().item() == pytest.approx(1, abs=0.03)


def test_posterior_draws_stored_latents():
    z = draw("posterior", 40, CODES)
    assert ((z == 1).sum(1) == 1).all()
    assert len(z.unique(dim=0)) == 4


@pytest.mark.parametrize("name", ["weighted-mix", "prior", "posterior"])
def test_a_picture_does_not_depend_on_how_many_there_are(name):
    many, few = draw(name, 9, CODES), draw(name, 4, CODES)
    assert torch.equal(many[:4], few)
    assert not torch.equal(many, draw(name, 9, CODES, seed=1))
