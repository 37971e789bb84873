"""Losses on the latents of a whole batch, and on a codebook."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from steps import batches
from torch import distributions

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx_builtin.posteriors import Quantised

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
REAL = torch.zeros(1, 3, 4, 4)
WIDE = torch.float64


def loss(name, **settings):
    return vgx.discover().part("loss", name)(**settings)


def step(**given):
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, "real": REAL, **given})


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def encoded(z, seed=0):
    """A step with these latents, whose losses draw from a seed of their own."""
    posterior = vgx.Gaussian(z, torch.zeros_like(z))
    return step(posterior=posterior, z=z, rng=lambda word: rng.generator(seed, word))


# --- mmd ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3, 3)])
def test_mmd_is_the_sum_over_pairs(kernel, shape):
    z = normal(*shape)
    prior = torch.empty(shape, dtype=WIDE).normal_(generator=rng.generator(0, "mmd"))
    a, b = z.flatten(1), prior.flatten(1)
    scale = 2 * a.shape[1]

    def similar(x, y):
        square = sum((p - q) ** 2 for p, q in zip(x.tolist(), y.tolist(), strict=True))
        return scale / (scale + square) if kernel == "imq" else math.exp(-square / scale)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(similar(x[i], x[j]) for x in (a, b) for i, j in pairs if i != j) / 20
    across = sum(similar(a[i], b[j]) for i, j in pairs) / 25
    value = loss("mmd", kernel=kernel).generator(encoded(z))
    assert value.item() == pytest.approx(within - 2 * across)


def test_the_rbf_kernel_is_that_of_scikit_learn():
    a, b = normal(4, 6), normal(4, 6, seed=1)
    ours = loss("mmd", kernel="rbf")._similarity(a, b)
    assert ours.numpy() == pytest.approx(rbf_kernel(a.numpy(), b.numpy(), gamma=1 / 12))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_0_on_average_where_the_latents_are_the_priors(kernel):
    part = loss("mmd", kernel=kernel)
    at_home = [part.generator(encoded(normal(8, 4, seed=n), n)).item() for n in range(200)]
    mean = sum(at_home) / 200
    deviation = (sum((value - mean) ** 2 for value in at_home) / 200) ** 0.5
    assert abs(mean) < 3 * deviation / 200**0.5
    away = part.generator(encoded(normal(8, 4) + 2)).item()
    far = part.generator(encoded(normal(8, 4) + 4)).item()
    assert mean + 3 * deviation < away < far


def test_mmd_draws_anew_in_each_step():
    z, part = normal(6, 3), loss("mmd")
    values = [part.generator(encoded(z, seed)).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_mmd_pulls_latents_that_are_away_to_the_prior():
    z = (normal(16, 4) + 2).requires_grad_()
    (pull,) = torch.autograd.grad(loss("mmd").generator(encoded(z)), z)
    assert (pull.mean(0) > 0).all()


def test_mmd_needs_an_encoder_and_two_images():
    with pytest.raises(RecipeError, match="needs an encoder"):
        loss("mmd").generator(step(z=normal(4, 3)))
    with pytest.raises(RecipeError, match="two images"):
        loss("mmd").generator(encoded(normal(1, 3)))


# --- total correlation -------------------------------------------------------------------------


def estimate(z, posterior, count):
    """Chen et al. 2018: minibatch-weighted sampling for `count` images in the data set."""
    batch, total = len(z), 0.0
    for i in range(batch):
        density = distributions.Normal(posterior.mu, (posterior.logvar / 2).exp()).log_prob(z[i])
        total += (density.sum(1).exp().sum() / (count * batch)).log().item()
        total -= (density.exp().sum(0) / (count * batch)).log().sum().item()
    return total / batch


@pytest.mark.parametrize("count", [1, 1000])
def test_total_correlation_is_the_papers_estimate_but_for_a_constant(count):
    posterior = vgx.Gaussian(normal(6, 3), normal(6, 3, seed=1))
    z = normal(6, 3, seed=2)
    value = loss("total-correlation", unit="sample").generator(step(posterior=posterior, z=z))
    constant = 2 * math.log(count)  # (Z - 1) log N
    assert value.item() == pytest.approx(estimate(z, posterior, count) - constant)


def test_total_correlation_of_spatial_latents_in_both_units():
    posterior = vgx.Gaussian(normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1))
    z = normal(4, 2, 3, 3, seed=2)
    flat = vgx.Gaussian(posterior.mu.flatten(1), posterior.logvar.flatten(1))
    for at in (step(posterior=posterior, z=z), step(posterior=flat, z=z.flatten(1))):
        value = loss("total-correlation", unit="sample").generator(at).item()
        assert value == pytest.approx(estimate(z.flatten(1), flat, 1))
        assert loss("total-correlation").generator(at).item() == pytest.approx(value / 48)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_total_correlation_of_a_gaussian_is_known(correlation):
    """Two latents N(0, [[1, r], [r, 1]]): -1/2 ln(1 - r^2)."""
    spread = 0.1  # variance of each posterior; what the means vary is the rest
    covariance = torch.tensor([[1 - spread, correlation], [correlation, 1 - spread]], dtype=WIDE)
    mu = normal(1500, 2) @ torch.linalg.cholesky(covariance).T
    z = mu + math.sqrt(spread) * normal(1500, 2, seed=1)
    posterior = vgx.Gaussian(mu, torch.full_like(mu, math.log(spread)))
    value = loss("total-correlation", unit="sample").generator(step(posterior=posterior, z=z))
    assert value.item() == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.06)


def test_total_correlation_is_finite_far_from_every_posterior():
    posterior = vgx.Gaussian(torch.zeros(3, 2), torch.full((3, 2), -30.0, requires_grad=True))
    value = loss("total-correlation").generator(step(posterior=posterior, z=torch.ones(3, 2)))
    assert value.isfinite()


# --- vq ----------------------------------------------------------------------------------------


def quantised():
    encoded = torch.tensor([[1.0, 0.0], [3.0, 2.0]], requires_grad=True)
    codes = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    return Quantised(encoded, codes, torch.tensor([0, 1]))


def test_vq_by_hand():
    """Squares 1, 0, 0, 4: a mean of 5/4, once for the codebook and a quarter for the encoder."""
    at = step(posterior=quantised())
    assert loss("vq").generator(at).item() == pytest.approx(1.25 * 1.25)
    assert loss("vq", commitment=2.0).generator(at).item() == pytest.approx(1.25 * 3)


def test_vq_draws_the_codebook_to_the_encoder_and_less_so_the_other_way():
    posterior = quantised()
    value = loss("vq").generator(step(posterior=posterior))
    encoder, codebook = torch.autograd.grad(value, [posterior.encoded, posterior.codes])
    apart = posterior.codes.detach() - posterior.encoded.detach()
    assert torch.allclose(codebook, 2 * apart / 4)
    assert torch.allclose(encoder, -0.25 * 2 * apart / 4)


def test_vq_names_the_encoder_that_it_needs():
    expected = (
        "vq needs the encoder vector-quantised or residual-quantised; the encoder gives a Gaussian"
    )
    with pytest.raises(RecipeError, match=expected):
        loss("vq").generator(encoded(normal(4, 3)))


# --- in a run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "losses"),
    [
        ("conv", ["mmd", "total-correlation"]),
        ("conv", [{"type": "kl", "free_bits": 0.1, "capacity": 2.0}]),
        ("deterministic", ["mmd"]),
        ("vector-quantised", ["vq"]),
    ],
)
def test_the_audit_finds_nothing_wrong_with_losses_on_latents(encoder, losses):
    """They move the encoder and leave the decoder alone."""
    inner = {"type": "conv", "widths": [8, 16]}
    changes = {"losses": ["l1", *losses], "discriminator": None, "encoder": inner}
    if encoder != "conv":
        changes["encoder"] = {"type": encoder, "inner": inner}
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = {flow.label: flow.norms for flow in examine(engine, vgx.discover(), Batch(real)).flows}
    for name in [term if isinstance(term, str) else term["type"] for term in losses]:
        assert flows[name]["encoder"] > 0
        assert flows[name]["decoder"] is None
    assert all(value.isfinite() for value in engine.step(0, batches(real)).values())


def test_a_recipe_that_lacks_what_a_loss_needs_is_told_before_the_first_step():
    """By number and name, as every loss that asks for what is absent."""
    changes = {"losses": ["hinge", "mmd"], "encoder": None, "train.fakes": ["prior"]}
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    expected = r"losses.1: mmd asks for step.posterior: the recipe needs an encoder"
    with pytest.raises(RecipeError, match=expected):
        examine(engine, vgx.discover(), Batch(torch.rand(8, 3, 16, 16)))
