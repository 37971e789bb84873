"""Metrics that use the trained networks, against values known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError
from torch import nn

import vgx
from vgx.errors import RecipeError
from vgx.testing import small_model

IMAGE, LATENT = vgx.ImageSpec(size=(2, 3), channels=1), vgx.LatentSpec((2,))
SCALE = 0.05  # of the noise of the linear model


def metric(name, **fields):
    return vgx.discover().part("metric", name)(**fields)


def metric_loss(name, **fields):
    return vgx.discover().part("loss", name)(**fields)


class Linear(nn.Module):
    """Decodes to the mean W z + b; the metric takes the sigmoid of the logits."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = 0.04 * torch.randn(6, 2, generator=generator, dtype=torch.float64)
        self.bias = 0.3 + 0.4 * torch.rand(6, generator=generator, dtype=torch.float64)

    def forward(self, z):
        mean = z.double() @ self.weight.T + self.bias  # [B, 6]
        return mean.logit().view(-1, 1, 2, 3)


class Inverse(nn.Module):
    """The exact posterior of the linear model, or one whose variance is too large."""

    def __init__(self, decoder, wider):
        super().__init__()
        self.decoder, self.wider = decoder, wider

    def forward(self, images):
        w, x = self.decoder.weight, images.flatten(1).double() - self.decoder.bias
        precision = torch.eye(2, dtype=torch.float64) + w.T @ w / SCALE**2
        mean = x @ w @ torch.linalg.inv(precision) / SCALE**2  # [B, 2]
        logvar = -precision.diagonal().log() + self.wider
        return vgx.Gaussian(mean, logvar.expand_as(mean))


def linear_model(wider=0.0):
    decoder = Linear()
    # Without correlation of the two latents a diagonal posterior can be exact.
    decoder.weight = torch.linalg.qr(decoder.weight).Q * 0.06
    return replace(small_model(IMAGE, LATENT), decoder=decoder, encoder=Inverse(decoder, wider))


def data(model, n=24):
    draws = np.random.default_rng(0)
    w, b = model.decoder.weight.numpy(), model.decoder.bias.numpy()
    values = draws.normal(0, 1, (n, 2)) @ w.T + b + draws.normal(0, SCALE, (n, 6))
    images = torch.from_numpy(values.clip(0, 1)).view(n, 1, 2, 3)
    return images, scipy.stats.multivariate_normal(b, w @ w.T + SCALE**2 * np.eye(6))


def measured(model, images, **fields):
    state = metric("bits-per-dim", likelihood="gaussian", scale=SCALE, **fields).build(IMAGE)
    state.use(model)
    for some in images.split(7):
        state.update(some, some, None)
    return state.compute()


def true_bits(images, density):
    """Bits of the marginal density of a linear-Gaussian model, of values that are bytes."""
    nats = density.logpdf(images.flatten(1).numpy()).mean() - 6 * math.log(255)
    return -nats / (6 * math.log(2))


def test_both_bounds_are_exact_for_the_exact_posterior():
    model = linear_model()
    images, density = data(model)
    found = measured(model, images, samples=3)
    wanted = true_bits(images, density)
    assert found == pytest.approx(dict.fromkeys(found, wanted), abs=1e-5)


def test_the_importance_weighted_bound_is_the_tighter_one():
    """With a variance that is e times too large, the KL of each dimension is (e - 1 - 1) / 2."""
    model = linear_model(wider=1.0)
    images, density = data(model)
    wanted, kl = true_bits(images, density), 2 * (math.e - 2) / 2 / (6 * math.log(2))
    found = measured(model, images, samples=2000)
    assert found["bits_per_dim"] == pytest.approx(wanted + kl, abs=0.01)
    assert found["iwae_bits_per_dim"] == pytest.approx(wanted, abs=0.01)
    few = measured(model, images, samples=2)
    assert wanted < few["iwae_bits_per_dim"] < few["bits_per_dim"]


def test_a_learned_prior_takes_the_place_of_the_normal_one():
    """The marginal of a linear model is then a mixture of Gaussians, one for each component."""
    model = linear_model()
    images, _ = data(model)
    term = metric_loss("vamp-prior", components=2).build(IMAGE, LATENT).double()
    model = replace(model, open_losses=lambda: {"vamp-prior": term})
    found = measured(model, images, samples=300)
    own, w, b = model.encoder(term.images), model.decoder.weight.numpy(), model.decoder.bias.numpy()
    densities = [
        scipy.stats.multivariate_normal(
            w @ mean.detach().numpy() + b,
            w @ np.diag(logvar.exp().detach().numpy()) @ w.T + SCALE**2 * np.eye(6),
        )
        for mean, logvar in zip(own.mean, own.logvar, strict=True)
    ]
    logs = [each.logpdf(images.flatten(1).numpy()) for each in densities]
    nats = (np.logaddexp(*logs) - math.log(2)).mean() - 6 * math.log(255)
    wanted = -nats / (6 * math.log(2))
    assert abs(wanted - true_bits(images, data(model)[1])) > 0.3  # so N(0, I) would be seen
    assert found["iwae_bits_per_dim"] == pytest.approx(wanted, abs=0.05)


def test_a_learned_prior_that_is_not_there_is_missed():
    model = small_model(IMAGE, LATENT)
    recipe = vgx.load_recipe("vamp_prior")
    with pytest.raises(RecipeError, match="exported without the prior"):
        metric("bits-per-dim").build(IMAGE).use(replace(model, recipe=recipe, encoder=nn.Flatten()))


def test_the_logistic_is_a_distribution_over_the_values_of_a_byte():
    part = metric("bits-per-dim", scale=0.02)
    x = (torch.arange(256) / 255).view(256, 1, 1, 1)
    for mean in (0.001, 0.3, 0.98):
        logits = torch.full_like(x, mean).logit()
        logs = part.log_likelihood("logistic", x, logits).numpy()
        assert np.exp(logs).sum() == pytest.approx(1, abs=1e-6)
        cdf = partial(scipy.stats.logistic.cdf, loc=mean, scale=0.02)
        wanted = cdf(100.5 / 255) - cdf(99.5 / 255)
        assert np.exp(logs[100]) == pytest.approx(wanted, rel=1e-4)
    far = part.log_likelihood("logistic", x[255:], torch.full((1, 1, 1, 1), -20.0))
    assert far.isfinite().all()


def test_the_likelihood_is_that_of_the_pixel_loss():
    part = metric("bits-per-dim")
    kinds = {"bernoulli": (["bce", "kl"], ["iwae"]), "logistic": (["l1", "kl"], ["l2", "kl"])}
    for kind, losses in ((kind, losses) for kind, several in kinds.items() for losses in several):
        assert part.chosen(vgx.load_recipe("vae", {"losses": losses})) == kind
    x, logits = torch.rand(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    p = torch.sigmoid(logits).numpy()
    wanted = (x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p)).sum((1, 2, 3))
    assert part.log_likelihood("bernoulli", x, logits).numpy() == pytest.approx(wanted, rel=1e-5)


def test_a_model_without_a_gaussian_is_refused():
    model, images = small_model(IMAGE, LATENT), torch.rand(2, 1, 2, 3)
    state = metric("bits-per-dim").build(IMAGE)
    with pytest.raises(RecipeError, match="has no encoder"):
        state.use(replace(model, encoder=None))
    point = nn.Flatten()
    point.register_forward_hook(lambda *_: Fixed(torch.zeros(2, 2)))
    state.use(replace(model, encoder=point))
    with pytest.raises(RecipeError, match="the posterior is Fixed, no Gaussian"):
        state.update(images, images, None)


class Fixed:
    def __init__(self, mean):
        self.mean = mean


class Pixels(vgx.Features, type="pixels-for-paths"):
    """The pixel values themselves."""

    def build(self, image):
        return nn.Flatten()


class MappedLinear(Linear):
    """The same of w = tanh(2 z)."""

    def map(self, z, labels=None):
        assert labels is None
        return torch.tanh(2 * z)

    def decode_mapped(self, w):
        return Linear.forward(self, w)

    def forward(self, z):
        return self.decode_mapped(self.map(z))


class LabelledLinear(MappedLinear):
    """The same, where w is shifted by the label."""

    def map(self, z, labels):
        return torch.tanh(2 * z) * (1 + 0.1 * labels[:, None])

    def decode_mapped(self, w):
        return Linear.forward(self, w)


def test_paths_of_a_decoder_with_labels_take_all_classes_in_turn_where_images_have_none():
    """As where images are those of another data set."""
    model = linear_model()
    model = replace(model, decoder=LabelledLinear(), recipe=vgx.load_recipe("cvae"))
    images, found = torch.rand(40, 1, 2, 3), {}
    for name, labels in (("none", None), ("in turn", torch.arange(40) % 6)):
        state = metric("path-length", features=Pixels(), between="mapped").build(IMAGE)
        state.use(model)
        state.update(images, images, labels)
        found[name] = state.compute()["path-length"]
    assert found["none"] == found["in turn"] > 0


@pytest.mark.parametrize("between", ["prior", "codes", "mapped"])
def test_the_path_length_is_the_squared_speed_of_the_features(between):
    """The derivative by t of normalised pixels, computed by PyTorch in float64."""
    model = linear_model()
    model = replace(model, codes=torch.randn(9, 2, generator=torch.Generator().manual_seed(5)))
    if between == "mapped":
        model = replace(model, decoder=MappedLinear(), codes=model.codes[:0])  # it needs none
    part = metric("path-length", features=Pixels(), between=between)
    state = part.build(IMAGE)
    state.use(model)
    state.update(torch.rand(40, 1, 2, 3), torch.rand(40, 1, 2, 3), None)
    found = state.compute()["path-length"]
    generator = torch.Generator().manual_seed(0)
    pairs = [state._ends(generator) for _ in range(40)]
    places = torch.rand(40, generator=generator, dtype=torch.float64)
    speeds = []
    for (a, b), t in zip(pairs, places, strict=True):
        w = torch.arccos((a @ b) / a.norm() / b.norm())

        def features(t, a=a, b=b, w=w):
            if between == "codes":
                z = (1 - t) * a + t * b
            elif between == "mapped":
                z = (1 - t) * torch.tanh(2 * a) + t * torch.tanh(2 * b)
            else:
                one, other = a / a.norm(), b / b.norm()
                z = (torch.sin((1 - t) * w) * one + torch.sin(t * w) * other) / torch.sin(w)
                z = z * ((1 - t) * a.norm() + t * b.norm())
            image = z @ model.decoder.weight.T + model.decoder.bias
            return image / image.norm()

        speeds.append(torch.autograd.functional.jacobian(features, t).square().sum().item())
    assert found == pytest.approx(np.mean(speeds), rel=0.003)


def test_both_places_of_a_path_have_the_label_of_a_real_image():
    """The decoder's pixels are labels, so with another label at one end the length is not 0."""
    decoded = []

    def decode(z, labels):
        decoded.append(labels.tolist())
        return (
            (labels[:, None] / 4 + torch.tensor([0.1, 0.2])).view(-1, 1, 1, 2).expand(-1, 1, 2, 2)
        )

    state = metric("path-length", features=Pixels()).build(IMAGE)
    state.use(SimpleNamespace(codes=torch.zeros(3, 2), decode=decode))
    for labels in ([2, 0, 1], [3, 3]):  # more paths than labels: they begin again
        images = torch.rand(len(labels), 1, 2, 3)
        state.update(images, torch.rand(4, 1, 2, 3), torch.tensor(labels))
    assert state.compute()["path-length"] == 0
    assert decoded == [[2, 0, 1, 3, 3, 2, 0, 1]] * 2


def test_paths_of_a_model_without_latents_begin_in_the_prior():
    model = small_model(IMAGE, LATENT)
    empty = replace(model, codes=model.codes[:0])
    with pytest.raises(RecipeError, match="between: codes: the model has no stored latents"):
        metric("path-length", between="codes").build(IMAGE).use(empty)
    with pytest.raises(RecipeError, match="has no mapping network; write between: prior"):
        metric("path-length", between="mapped").build(IMAGE).use(linear_model())
    with pytest.raises(ValidationError, match="weights are those of lpips: write lpips: vgg"):
        metric("path-length", weights=Path("any.safetensors"))
