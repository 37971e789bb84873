"""Figures of runs: of the right pictures, in the right features, and right."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.distributions import Normal, kl_divergence

import vgx
from vgx import keys, latents
from vgx.data import hash_of
from vgx.errors import DataError
from vgx.latents import Latents
from vgx.split import held_out
from vgx.voice import Voice

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
CPU = torch.device("cpu")
REGISTRY = vgx.discover()


def voice():
    return Voice(Console(file=io.StringIO()))


def part(kind, name, **fields):
    return REGISTRY.part(kind, name)(**fields)


# --- the split ---------------------------------------------------------------------------------


def test_the_split_is_of_what_is_on_the_pictures():
    """Duplicates are on one side, and a picture stays on its side whatever else there is."""
    hashes = np.array([hash_of(bytes([n // 2, 7])) for n in range(512)], np.uint64)
    held = held_out(hashes, 0.25)
    assert (held[::2] == held[1::2]).all()
    assert held.mean() == pytest.approx(0.25, abs=0.06)
    assert (held_out(hashes[100:], 0.25) == held[100:]).all()
    assert held[held_out(hashes, 0.1)].all()  # a larger share holds out more, and the same ones
    assert not held_out(hashes, 0).any()


def test_a_share_that_leaves_a_side_empty_is_refused():
    hashes = np.array([hash_of(b"one")] * 5, np.uint64)
    with pytest.raises(DataError, match=r"eval.holdout: 0.01: 5 pictures are too few: all of them"):
        held_out(hashes, 0.01)
    high = np.array([0x9E3779B97F4A7C15] * 2, np.uint64)
    with pytest.raises(DataError, match="none of them would be trained on"):
        held_out(high, 0.5)


# --- latents -----------------------------------------------------------------------------------


def posteriors(n=400, dimensions=5):
    chance = torch.Generator().manual_seed(0)
    mean = torch.randn(n, dimensions, generator=chance) * torch.tensor([2, 1, 0.5, 0.05, 0])
    logvar = torch.randn(n, dimensions, generator=chance) / 2 - 1
    return vgx.Gaussian(mean, logvar)


def test_kl_is_that_of_the_distributions():
    given = posteriors()
    spread = (given.logvar.double() / 2).exp()
    exact = kl_divergence(Normal(given.mu.double(), spread), Normal(0.0, 1.0)).mean(0)
    found = latents.kl_by_dimension(Latents.of([given]))
    assert found == pytest.approx(exact.tolist(), rel=1e-6)
    said = latents.figures(Latents.of([given]), 0)
    assert said["kl"] == pytest.approx(exact.sum().item(), rel=1e-6)
    assert said["active_units"] == 3  # variances of about 4, 1, 0.25, 0.0025 and 0


def test_batches_are_gathered():
    given = posteriors(6)
    one = vgx.Gaussian(given.mu[:2].view(2, 5, 1, 1), given.logvar[:2].view(2, 5, 1, 1))
    two = vgx.Gaussian(given.mu[2:].view(4, 5, 1, 1), given.logvar[2:].view(4, 5, 1, 1))
    gathered = Latents.of([one, two])
    assert torch.equal(gathered.mean, given.mu.double())
    assert torch.equal(gathered.logvar, given.logvar.double())


def test_the_gap_from_the_prior_is_none_for_the_prior():
    """Deterministic latents from N(0, I), from N(2, I) and from N(0, 9 I): 0, 2 and 3.4 nats."""
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()

    def said(given):
        return latents.figures(Latents(given, None), 0)

    assert said(z)["marginal_kl"] == pytest.approx(0, abs=0.01)
    assert said(z + 2)["marginal_kl"] == pytest.approx(3 * 2, rel=0.05)
    wide = 3 * (9 - 1 - math.log(9)) / 2
    assert said(3 * z)["marginal_kl"] == pytest.approx(wide, rel=0.05)
    assert said(z)["mmd"] == pytest.approx(0, abs=1e-3)
    assert said(z + 2)["mmd"] > 0.1
    assert "kl" not in said(z)


def test_mmd_is_the_unbiased_estimate():
    """Over all pairs one by one, with the same draws of the prior."""
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double()
    prior = torch.randn(z.shape, generator=keys.generator(3, "evaluation prior")).double()

    def similar(a, b):
        return 8 / (8 + ((a - b) ** 2).sum().item())

    pairs = [(i, j) for i in range(12) for j in range(12)]
    apart = [(i, j) for i, j in pairs if i != j]
    expected = sum(similar(z[i], z[j]) + similar(prior[i], prior[j]) for i, j in apart) / len(apart)
    expected -= 2 * sum(similar(z[i], prior[j]) for i, j in pairs) / len(pairs)
    found = latents.figures(Latents(z, None), 3)["mmd"]
    assert found == pytest.approx(expected, rel=1e-9)


def independent(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).double()


def named(columns):
    return {f"f{index}": column.tolist() for index, column in enumerate(columns.T)}


def test_latents_that_are_the_factors_score_fully():
    z = independent(3000, 4)
    said = latents.of_factors(Latents(z, None), named(z * 3 + 1), 0)
    assert said["readout_r2"] == pytest.approx(1, abs=1e-3)
    assert said["disentanglement"] == pytest.approx(1, abs=1e-3)
    assert said["completeness"] == pytest.approx(1, abs=1e-3)
    assert said["mig"] > 0.9


def test_latents_that_mix_the_factors_are_read_but_not_disentangled():
    """A rotation by 45 degrees: each latent serves both factors, each factor needs both latents."""
    z = independent(3000, 2)
    turned = z @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).double() / 2**0.5
    said = latents.of_factors(Latents(turned, None), named(z), 0)
    assert said["readout_r2"] == pytest.approx(1, abs=1e-3)
    assert said["disentanglement"] < 0.05
    assert said["completeness"] < 0.05
    assert said["mig"] < 0.1


def test_latents_that_know_nothing_score_nothing():
    said = latents.of_factors(
        Latents(independent(3000, 3), None), named(independent(3000, 2, 9)), 0
    )
    assert said["readout_r2"] < 0.01
    assert said["mig"] < 0.02


def test_a_factor_that_never_changes_is_left_out():
    z = independent(500, 2)
    both = torch.cat([z, torch.ones(500, 1)], 1)
    assert latents.of_factors(Latents(z, None), named(both), 0) == latents.of_factors(
        Latents(z, None), named(z), 0
    )
    assert latents.of_factors(Latents(z, None), named(both[:, 2:]), 0) == {}


def test_purity_by_hand():
    """1 - H in base 3: all in one place, in two alike, in three alike, and nothing at all."""
    weights = np.array([[0, 4.0, 0], [1, 1, 0], [2, 2, 2], [0, 0, 0]])
    assert latents._purity(weights) == pytest.approx([1, 1 - math.log(2, 3), 0, 0])


def test_bins_hold_as_many_each_and_kinds_keep_theirs():
    column = np.random.default_rng(0).normal(size=1000)
    assert (np.bincount(latents._binned(column)) == 50).all()
    assert latents._binned(np.array([2.0, 0, 2, 5])).tolist() == [1, 0, 1, 2]


def test_mig_is_the_gap_over_the_entropy():
    """One factor of four values; one latent tells it all, another half, a third nothing."""
    factor = np.repeat(np.arange(4.0), 25)
    means = np.stack([factor, factor // 2, np.zeros(100)], 1)
    assert latents._mig(means, factor[:, None]) == pytest.approx(
        (math.log(4) - math.log(2)) / math.log(4)
    )
