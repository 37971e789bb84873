"""Losses that whole families of models are named after: each against another implementation."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import distributions
from torch.nn import functional as F

import vgx
from vgx.errors import HubError, RecipeError
from vgx.parts.base import validate

WIDE = torch.float64
REGISTRY = vgx.discover()


def loss(name, **settings):
    return validate(REGISTRY.part("loss", name), settings, REGISTRY)


def step(**given):
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    real = torch.zeros(1, 3, 4, 4)
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, "real": real, **given})


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def images(seed, n=4, side=8, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=generator, dtype=WIDE)


# --- sigma-vae ---------------------------------------------------------------------------------


def nats(recon, real, log_sigma):
    """The authors' program: softclip(log_sigma, -6), and a sum that is divided by all values."""
    sigma = (-6 + F.softplus(log_sigma + 6)).exp()
    return -distributions.Normal(recon, sigma).log_prob(real).sum() / real.numel()


def test_sigma_vae_has_the_value_and_gradient_of_the_authors_program():
    real, recon = images(0), images(1).requires_grad_()
    value = loss("sigma-vae").generator(step(real=real, recon=recon))
    expected = nats(recon, real, ((real - recon) ** 2).mean().sqrt().log())
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(each, recon)[0] for each in (value, expected))
    assert torch.allclose(ours, theirs, atol=1e-12)
    # No other variance makes the images more likely, but for the soft bound.
    others = [nats(recon, real, torch.tensor(s / 50, dtype=WIDE)).item() for s in range(-100, 50)]
    assert value.item() == pytest.approx(min(others), abs=1e-3)


def test_sigma_vae_learns_its_variance():
    module = loss("sigma-vae", variance="learned").build().double()
    assert [name for name, _ in module.named_parameters()] == ["log_sigma"]
    at = step(real=images(0), recon=images(1))
    log_sigma = torch.tensor(0.0, dtype=WIDE, requires_grad=True)
    expected = nats(at.recon, at.real, log_sigma)
    value = module.generator(at)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    slopes = torch.autograd.grad(value, module.log_sigma), torch.autograd.grad(expected, log_sigma)
    assert slopes[0][0].item() == pytest.approx(slopes[1][0].item(), abs=1e-12)
    for _ in range(200):
        (slope,) = torch.autograd.grad(module.generator(at), module.log_sigma)
        module.log_sigma.data -= 0.1 * slope
    assert module.generator(at).item() == pytest.approx(
        loss("sigma-vae").generator(at).item(), abs=1e-3
    )


def test_sigma_vae_of_perfect_reconstructions_is_finite():
    real = images(0).float()
    recon = real.clone().requires_grad_()
    value = loss("sigma-vae").generator(step(real=real, recon=recon))
    (slope,) = torch.autograd.grad(value, recon)
    assert value.item() == pytest.approx(-6 + math.log(2 * math.pi) / 2, abs=1e-4)
    assert slope.isfinite().all()


# --- dip-vae -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "factor"), [(1, 10), (2, 1)])
def test_dip_vae_is_the_distance_of_two_covariances(variant, factor):
    posterior = vgx.Gaussian(normal(6, 2, 2, 1), normal(6, 2, 2, 1, seed=1))
    mu, logvar = posterior.mu.flatten(1).numpy(), posterior.logvar.flatten(1).numpy()
    covariance = np.cov(mu, rowvar=False, bias=True)
    if variant == 2:
        covariance += np.diag(np.exp(logvar).mean(0))
    wrong = (covariance - np.eye(4)) ** 2
    diagonal = np.trace(wrong)
    expected = wrong.sum() - diagonal + factor * diagonal
    at = step(posterior=posterior)
    value = loss("dip-vae", variant=variant, unit="sample").generator(at)
    assert value.item() == pytest.approx(expected)
    assert loss("dip-vae", variant=variant).generator(at).item() == pytest.approx(expected / 48)
    other = loss("dip-vae", variant=variant, diagonal=3.0, unit="sample").generator(at)
    assert other.item() == pytest.approx(wrong.sum() - diagonal + 3 * diagonal)


# --- stratified total correlation --------------------------------------------------------------


def densities(posterior, z):
    """q(z_ij | x_k) for all i, k and j."""
    normals = distributions.Normal(posterior.mu, (posterior.logvar / 2).exp())
    return normals.log_prob(z[:, None]).exp()


def test_the_stratified_estimate_has_no_bias():
    """Chen et al. 2018, appendix C.2: over all minibatches, the mean estimate of q(z) is q(z)."""
    from vgx_builtin.losses.divergence import stratified_weights

    count, batch = 5, 3
    posterior = vgx.Gaussian(normal(count, 2), normal(count, 2, seed=1))
    weights = stratified_weights(batch, count)
    for own in range(count):  # the image that z was drawn for
        z = normal(1, 2, seed=own)
        each = densities(posterior, z)[0].prod(1)  # [N]
        others = [k for k in range(count) if k != own]
        for row in range(batch):
            estimates = []
            for chosen in itertools.permutations(others, batch - 1):
                members = [*chosen[:row], own, *chosen[row:]]
                estimates.append((weights[row] * each[members]).sum().item())
            assert sum(estimates) / len(estimates) == pytest.approx(each.mean().item())


def test_the_stratified_total_correlation_by_hand():
    posterior = vgx.Gaussian(normal(3, 2), normal(3, 2, seed=1))
    z = normal(3, 2, seed=2)
    # Of 3 images among 10: 1/10, (10 - 2) / (10 * 2) for the next one, 1/2 for the rest.
    weights = torch.tensor([[0.1, 0.4, 0.5], [0.5, 0.1, 0.4], [0.4, 0.5, 0.1]], dtype=WIDE)
    each = densities(posterior, z)  # [B, B, Z]
    together = (weights * each.prod(2)).sum(1).log()
    alone = (weights[:, :, None] * each).sum(1).log().sum(1)
    part = loss("total-correlation", estimator="stratified", images=10, unit="sample")
    value = part.generator(step(posterior=posterior, z=z))
    assert value.item() == pytest.approx((together - alone).mean().item())


def test_the_stratified_estimate_needs_the_number_of_images():
    with pytest.raises(ValidationError, match="stratified needs 'images'"):
        loss("total-correlation", estimator="stratified")
    part = loss("total-correlation", estimator="stratified", images=3)
    posterior = vgx.Gaussian(normal(4, 2), normal(4, 2))
    with pytest.raises(RecipeError, match=r"2 to 3 images \('images'\), and this one has 4"):
        part.generator(step(posterior=posterior, z=normal(4, 2)))


# --- lpips -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["vgg", "alex"])
def trunk(request, tmp_path_factory):
    """A network, torchmetrics' LPIPS with a random trunk, and a file of that trunk."""
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = _LPIPS(pretrained=True, net=request.param, pnet_rand=True).eval()
    tensors = {}
    for part in range(1, 6):
        for name, tensor in getattr(reference.net, f"slice{part}").state_dict().items():
            tensors[f"features.{name}"] = tensor.clone()
    file = tmp_path_factory.mktemp("trunk") / f"{request.param}.safetensors"
    save_file({**tensors, "classifier.0.weight": torch.zeros(2)}, file)
    return request.param, reference, file


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_that_of_torchmetrics(trunk, channels):
    """As a loss and as a metric: the same values, and the same gradient."""
    network, reference, file = trunk
    real, fake = (images(seed, 3, 35, channels).float() for seed in (0, 1))
    recon, theirs = fake.clone().requires_grad_(), fake.clone().requires_grad_()
    wide = (tensor.expand(-1, 3, -1, -1) for tensor in (theirs, real))
    expected = reference(*wide, normalize=True).flatten()
    module = loss("lpips", network=network, weights=str(file)).build()
    value = module.train().generator(step(real=real, recon=recon))
    assert value.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    slopes = [torch.autograd.grad(v, x)[0] for v, x in ((value, recon), (expected.mean(), theirs))]
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-3 * slopes[1].abs().max().item())
    part = validate(
        REGISTRY.part("metric", "lpips"), {"network": network, "weights": str(file)}, REGISTRY
    )
    state = part.build(vgx.ImageSpec(35, channels))
    state.update(real[:2], fake[:2])
    state.update(real[2:], fake[2:])
    assert state.compute() == {"lpips": pytest.approx(expected.mean().item(), rel=1e-5)}


def test_lpips_takes_no_other_file(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    with pytest.raises(RecipeError, match="not the weights of torchvision's vgg network"):
        loss("lpips", weights=str(other)).build()
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(RecipeError, match="there is no such file"):
        loss("lpips", weights=str(tmp_path / "pipe.safetensors")).build()
    (tmp_path / "short.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(RecipeError, match="not read"):
        loss("lpips", weights=str(tmp_path / "short.safetensors")).build()


def test_lpips_without_a_network_says_what_to_write(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"loss lpips: its weights are not cached; .*FILE"):
        loss("lpips").build()
    assert "no LPIPS" in loss("lpips", pretrained=False).note(vgx.ImageSpec(32))
    part = validate(REGISTRY.part("metric", "lpips"), {}, REGISTRY)
    assert "network: vgg takes them" in part.why_not(vgx.ImageSpec(30), 9, 9)
    assert part.why_not(vgx.ImageSpec(31), 9, 9) == ""
