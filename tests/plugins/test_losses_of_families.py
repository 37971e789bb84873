"""Losses that whole families of models are named after: each against another implementation."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy import stats
from scipy.special import logsumexp
from torch import distributions
from torch.nn import functional as F

import vgx
from vgx.errors import HubError, RecipeError
from vgx.parts.base import validate
from vgx.testing import full_step, small_model

WIDE = torch.float64
REGISTRY = vgx.discover()
IMAGE, LATENT = vgx.ImageSpec(8), vgx.LatentSpec((4,))


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
    module = loss("sigma-vae", variance="learned").build(IMAGE, LATENT).double()
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
    weights = stratified_weights(normal(batch, 2), count)
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
    module = loss("lpips", network=network, weights=str(file)).build(IMAGE, LATENT)
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


def test_the_path_length_has_the_lpips_of_torchmetrics(trunk):
    """Two images a fifth of a path apart: their LPIPS over the square of that."""
    network, reference, file = trunk
    settings = {"lpips": network, "weights": str(file), "eps": 0.2, "between": "codes"}
    part = validate(REGISTRY.part("metric", "path-length"), settings, REGISTRY)
    state = part.build(vgx.ImageSpec(35))
    ends, decoded = images(0, 2, 35, 3).float(), []

    def decode(z, labels):
        assert labels is None
        decoded.append((1 - z[:, :, None, None]) * ends[0] + z[:, :, None, None] * ends[1])
        return decoded[-1]

    state.use(SimpleNamespace(codes=torch.tensor([[0.0], [1.0]]), decode=decode))
    state.update(ends, ends[:1])
    found = state.compute()["path-length"]
    expected = reference(*decoded, normalize=True).item() / 0.2**2
    assert found == pytest.approx(expected, rel=1e-5)
    least = {"vgg": 16, "alex": 31}[network]
    assert part.why_not(vgx.ImageSpec(8), 1, 1) == f"{network} needs {least} pixels a side"
    assert part.why_not(vgx.ImageSpec(least), 1, 1) == ""


def test_lpips_takes_no_other_file(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    with pytest.raises(RecipeError, match="not the weights of torchvision's vgg network"):
        loss("lpips", weights=str(other)).build(IMAGE, LATENT)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(RecipeError, match="there is no such file"):
        loss("lpips", weights=str(tmp_path / "pipe.safetensors")).build(IMAGE, LATENT)
    (tmp_path / "short.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(RecipeError, match="not read"):
        loss("lpips", weights=str(tmp_path / "short.safetensors")).build(IMAGE, LATENT)


def test_lpips_without_a_network_says_what_to_write(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"loss lpips: its weights are not cached; .*FILE"):
        loss("lpips").build(IMAGE, LATENT)
    assert "no LPIPS" in loss("lpips", pretrained=False).note(vgx.ImageSpec(32))
    part = validate(REGISTRY.part("metric", "lpips"), {}, REGISTRY)
    assert "network: vgg takes them" in part.why_not(vgx.ImageSpec(30), 9, 9)
    assert part.why_not(vgx.ImageSpec(31), 9, 9) == ""


# --- iwae --------------------------------------------------------------------------------------

WEIGHT = normal(3, 12, seed=99)


def decoded(z, weight=WEIGHT):
    return (z.flatten(1) @ weight).view(-1, 3, 2, 2)


def weighed(mu, logvar, noise, real, weight=WEIGHT):
    """log w of every sample [K, B], and the samples, with distributions of torch."""
    posterior = distributions.Normal(mu, (logvar / 2).exp())
    z = posterior.mean + posterior.stddev * noise
    images = distributions.Bernoulli(logits=decoded(z.flatten(0, 1), weight), validate_args=False)
    likely = images.log_prob(real.repeat(len(noise), 1, 1, 1)).sum((1, 2, 3))
    prior = distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    return likely.view(z.shape[:2]) + prior - posterior.log_prob(z).sum(2), z


def iwae_step(weight=WEIGHT):
    mu, logvar = normal(2, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
    return step(
        real=images(0, 2, 2),
        posterior=vgx.Gaussian(mu, logvar),
        decode_logits=lambda z: decoded(z, weight),
        rng=lambda word: torch.Generator().manual_seed(len(word)),
    )


@pytest.mark.parametrize("gradient", ["plain", "dreg"])
def test_iwae_is_the_bound_of_several_samples(gradient):
    """Burda et al. 2016, with the gradient of the bound, or that of Tucker et al. 2019."""
    weight = WEIGHT.clone().requires_grad_()
    at = iwae_step(weight)
    mu, logvar = at.posterior.mu, at.posterior.logvar
    generator = at.rng("iwae")
    noise = [torch.empty(2, 3, dtype=WIDE).normal_(generator=generator) for _ in range(4)]
    noise = torch.stack(noise)
    logs, z = weighed(mu, logvar, noise, at.real, weight)
    bound = (logs.exp().sum(0) / 4).log().mean()
    value = loss("iwae", samples=4, gradient=gradient, unit="sample").generator(at)
    assert value.item() == pytest.approx(-bound.item())
    ours = torch.autograd.grad(value, [mu, logvar, weight], retain_graph=True)
    theirs = list(torch.autograd.grad(bound, [mu, logvar, weight], retain_graph=True))
    if gradient == "dreg":
        # sum_k v_k^2 d log w_k / d z_k with a posterior that is held, times d z / d phi by hand.
        free = z.detach().requires_grad_()
        spread = (logvar.detach() / 2).exp()
        held = weighed_at(free, mu.detach(), spread, at.real)
        slopes = torch.autograd.grad(held.sum(), free)[0]  # [K, B, Z]
        shares = held.softmax(0).detach() ** 2
        pulled = shares[:, :, None] * slopes / 2  # a mean over two images
        theirs[0] = pulled.sum(0)
        theirs[1] = (pulled * noise * spread / 2).sum(0)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, -other, atol=1e-10)


def weighed_at(z, mu, spread, real):
    """log w [K, B] of given samples."""
    images = distributions.Bernoulli(logits=decoded(z.flatten(0, 1)), validate_args=False)
    likely = images.log_prob(real.repeat(len(z), 1, 1, 1)).sum((1, 2, 3)).view(z.shape[:2])
    prior = distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    return likely + prior - distributions.Normal(mu, spread).log_prob(z).sum(2)


def test_more_samples_make_a_tighter_bound_and_one_is_the_elbo():
    at = iwae_step()
    drawn = [
        at.but(rng=lambda _, seed=seed: torch.Generator().manual_seed(seed)) for seed in range(300)
    ]
    means = [
        sum(loss("iwae", samples=k, unit="sample").generator(each).item() for each in drawn) / 300
        for k in (1, 4, 16)
    ]
    assert means[0] > means[1] > means[2]
    kl = loss("kl", unit="sample").generator(at).item()
    rows = []
    for each in drawn:
        noise = torch.empty(1, 2, 3, dtype=WIDE).normal_(generator=each.rng("iwae"))
        z = at.posterior.mu + (at.posterior.logvar / 2).exp() * noise[0]
        rows.append(F.binary_cross_entropy_with_logits(decoded(z), at.real, reduction="sum") / 2)
    assert means[0] == pytest.approx(kl + torch.stack(rows).mean().item(), abs=0.3)


# --- equivariance ------------------------------------------------------------------------------


def grown(z):
    """A decoder that repeats each place of a latent four times a side."""
    return z.repeat_interleave(4, 2).repeat_interleave(4, 3)


def turned(seed, z, real, **settings):
    at = step(z=z, real=real, decode=grown, rng=lambda _: torch.Generator().manual_seed(seed))
    return loss("equivariance", **settings).generator(at).item()


def test_latents_that_turn_with_their_images_cost_nothing():
    """And those that do not are the absolute error of the turned image, by hand."""
    z = images(0, 2, 4)
    assert [turned(seed, z, grown(z), smallest=1.0) for seed in range(8)] == [0.0] * 8
    grid = torch.zeros(1, 3, 4, 4, dtype=WIDE)
    grid[..., 0, 0] = 1  # one corner: it moves with each turn
    fixed = step(z=grid, real=grown(grid), decode=lambda _: grown(grid))
    costs = set()
    for seed in range(12):
        at = fixed.but(rng=lambda _, seed=seed: torch.Generator().manual_seed(seed))
        costs.add(round(loss("equivariance", smallest=1.0).generator(at).item(), 6))
    assert costs == {0.0, 2 / 16}  # sixteen of 256 pixels are wrong twice, or none


def smaller(x, side):
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def test_latents_are_made_smaller_as_their_images():
    """By the same factor, whatever it is; a turn of both changes no mean."""
    sides = []

    def decode(z):
        sides.append(z.shape[2])
        return grown(z)

    z = images(1, 2, 8)
    for seed in range(40):
        at = step(z=z, real=grown(z), decode=decode)
        at = at.but(rng=lambda _, seed=seed: torch.Generator().manual_seed(seed))
        value = loss("equivariance", smallest=0.25).generator(at).item()
        expected = grown(smaller(z, sides[-1])) - smaller(grown(z), 4 * sides[-1])
        assert value == pytest.approx(expected.abs().mean().item(), abs=1e-6)
    assert {*sides} == {2, 3, 4, 5, 6, 7, 8}


def test_what_is_not_square_is_turned_upside_down_only():
    z = torch.rand(1, 3, 4, 2, dtype=WIDE, generator=torch.Generator().manual_seed(0))
    assert [turned(seed, z, grown(z), smallest=1.0) for seed in range(8)] == [0.0] * 8


def test_equivariance_says_which_networks_it_wants():
    with pytest.raises(RecipeError, match="it needs spatial latents"):
        turned(0, normal(2, 4), images(0, 2))
    at = step(z=images(0, 2, 4), real=images(1, 2, 16), decode=lambda _: images(2, 2, 16))
    with pytest.raises(RecipeError, match="makes no images of latents of . x . places"):
        loss("equivariance", smallest=0.3).generator(at)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes"),
    ],
)
def test_equivariance_does_not_hide_that_memory_ran_out(error):
    def decode(z):
        raise error

    at = step(z=images(0, 2, 4), real=images(1, 2, 16), decode=decode)
    with pytest.raises(RuntimeError) as caught:
        loss("equivariance").generator(at.but(rng=lambda _: torch.Generator().manual_seed(0)))
    assert caught.value is error


# --- alignment ---------------------------------------------------------------------------------


def test_alignment_is_the_papers_two_similarities():
    """Yao et al. 2025, section 3, place by place, on the features of a timm model."""
    import timm

    part = loss(
        "alignment", backbone="test_resnet", pretrained=False, cosine_margin=0.9,
        distance_margin=0.05,
    )  # fmt: skip
    torch.manual_seed(0)
    module = part.build(vgx.ImageSpec(32), vgx.LatentSpec((5, 2, 2)))
    assert [n for n, p in module.named_parameters() if p.requires_grad] == ["projection.weight"]
    real, z = images(0, 2, 64).float(), normal(2, 5, 2, 2).float().requires_grad_()
    value = module.train().generator(step(real=real, z=z))
    twin = timm.create_model("test_resnet", features_only=True, out_indices=(-1,)).eval()
    twin.load_state_dict(module.backbone.state_dict())
    mean, std = (
        torch.tensor(module.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
        for name in ("mean", "std")
    )
    with torch.no_grad():
        features = twin((real - mean) / std)[0]
        mapped = torch.einsum("fc,bchw->bfhw", module.projection.weight[:, :, 0, 0], z)
    near, apart = [], []
    for image in range(2):
        places = [(i, j) for i in range(2) for j in range(2)]
        a = [mapped[image, :, i, j] for i, j in places]
        b = [features[image, :, i, j] for i, j in places]
        pairs = list(zip(a, b, strict=True))
        near += [max(0, 1 - 0.9 - F.cosine_similarity(x, y, 0).item()) for x, y in pairs]
        for (x, u), (y, v) in itertools.product(pairs, repeat=2):
            gap = F.cosine_similarity(x, y, 0) - F.cosine_similarity(u, v, 0)
            apart.append(max(0, abs(gap.item()) - 0.05))
    assert value.item() == pytest.approx(np.mean(near) + np.mean(apart), rel=1e-4)
    assert np.mean(near) > 0
    assert np.mean(apart) > 0
    assert torch.autograd.grad(value, z)[0].abs().sum() > 0


def test_alignment_resizes_images_to_the_places_of_the_latents():
    part = loss("alignment", backbone="test_vit", pretrained=False)
    module = part.build(vgx.ImageSpec(40), vgx.LatentSpec((5, 3, 3)))
    value = module.generator(step(real=images(0, 2, 40).float(), z=normal(2, 5, 3, 3).float()))
    assert value.isfinite()
    with pytest.raises(RecipeError, match="it needs spatial latents"):
        part.build(vgx.ImageSpec(40), LATENT)
    with pytest.raises(RecipeError, match="timm has no model 'resnet1'"):
        loss("alignment", backbone="resnet1").build(IMAGE, vgx.LatentSpec((5, 3, 3)))


# --- a prior that is learned: VampPrior, and the example of a mixture ---------------------------


def gaussians(*shape):
    """Leaves mu and logvar, and the same as a distribution of PyTorch."""
    mu, logvar = (normal(*shape, seed=len(shape) + n).requires_grad_() for n in shape[:2])
    scale = distributions.Normal(mu, (logvar / 2).exp())
    return vgx.Gaussian(mu, logvar), distributions.Independent(scale, len(shape) - 1)


@pytest.mark.parametrize("latent", [(4,), (2, 3, 3)])
def test_vamp_prior_is_the_divergence_from_a_mixture_by_loops(latent):
    """log q(z | x) - log 1/K sum_k q(z | u_k), number by number, with scipy's densities."""
    part = loss("vamp-prior", components=3, unit="sample")
    module = part.build(vgx.ImageSpec(8, classes=2), vgx.LatentSpec(latent)).to(WIDE)
    own, _ = gaussians(5, *latent)
    others, _ = gaussians(3, *latent)
    z, calls = normal(5, *latent, seed=99).requires_grad_(), []
    encode = lambda *given: calls.append(given) or others  # noqa: E731
    value = module.generator(step(posterior=own, z=z, encode=encode))

    def log_density(number, posterior, row):
        rows = (z[number], posterior.mu[row], posterior.logvar[row])
        each = zip(*(tensor.detach().flatten().tolist() for tensor in rows), strict=True)
        return sum(stats.norm.logpdf(at, m, math.exp(v / 2)) for at, m, v in each)

    nats = []
    for number in range(5):
        prior = logsumexp([log_density(number, others, k) for k in range(3)]) - math.log(3)
        nats.append(log_density(number, own, number) - prior)
    assert value.item() == pytest.approx(np.mean(nats), rel=1e-9)
    weights = [own.mu, own.logvar, others.mu, others.logvar, z]
    assert all(gradient.any() for gradient in torch.autograd.grad(value, weights))
    ((encoded, labels),) = calls
    assert labels.tolist() == [0, 1, 0]
    assert torch.equal(encoded, module.pixels)
    with torch.no_grad():
        module.pixels[0] += 1
    assert module.images.max() == 1
    assert module.images.min() >= 0


def test_the_sampler_draws_a_pseudo_input_and_then_its_posterior():
    """Shares, means and deviations of draws, of posteriors that are far from each other."""
    term = loss("vamp-prior", components=3).build(IMAGE, LATENT)
    mu = torch.tensor([-20.0, 0.0, 20.0])[:, None].repeat(1, 4)
    logvar = torch.tensor([0.0, 1.0, -2.0])[:, None].repeat(1, 4)

    class Fixed(torch.nn.Module):
        def forward(self, encoded):
            assert torch.equal(encoded, term.images)
            return vgx.Gaussian(mu, logvar)

    model = replace(small_model(IMAGE, LATENT), encoder=Fixed(), open_losses=lambda: {"vp": term})
    sampler = validate(REGISTRY.part("sampler", "vamp-prior"), {}, REGISTRY).build(LATENT)
    sampler.use(model)
    z = sampler.draw(3000, model.codes, torch.Generator().manual_seed(0))
    for k, near in enumerate(z[z[:, 0].sub(mu[k, 0]).abs() < 10] for k in range(3)):
        assert len(near) == pytest.approx(1000, abs=100)
        assert near.mean().item() == pytest.approx(mu[k, 0].item(), abs=0.2)
        assert near.std().item() == pytest.approx((logvar[k, 0] / 2).exp().item(), rel=0.05)
    sampler = validate(REGISTRY.part("sampler", "vamp-prior"), {}, REGISTRY).build(LATENT)
    with pytest.raises(RecipeError, match="sampler vamp-prior: the recipe has no loss vamp-prior"):
        sampler.use(small_model(IMAGE, LATENT))


def test_the_example_of_a_learned_prior_is_that_of_distributions():
    """log q(z | x) - log sum_k pi_k N(z; m_k, s_k^2), by PyTorch's mixture of Gaussians."""
    file = Path(__file__).parents[2] / "docs" / "examples" / "mixture_prior.py"
    part = vgx.discover([file]).part("loss", "mixture-prior")
    module = part(components=3).build(IMAGE, LATENT).to(WIDE)
    with torch.no_grad():
        module.logits.copy_(normal(3, seed=5))
        module.logvars.copy_(normal(3, 4, seed=6))
    own, density = gaussians(5, 4)
    z = normal(5, 4, seed=99)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=module.logits),
        distributions.Independent(
            distributions.Normal(module.means, (module.logvars / 2).exp()), 1
        ),
    )
    value = module.generator(full_step(image=IMAGE, latent=LATENT).but(posterior=own, z=z))
    expected = (density.log_prob(z) - mixture.log_prob(z)).mean() / (3 * 8 * 8)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
