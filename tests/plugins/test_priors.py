"""Priors: causality, likelihoods that sum to one, and what they learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vgx
from vgx import rng


def generator(seed=0):
    return rng.generator(seed, "test")


def built(part, latent, codes, seed=0):
    with rng.ambient(seed, "weights"):
        return part.build(vgx.LatentSpec(latent), codes)


def part(kind, **fields):
    return vgx.discover().part("prior", kind)(**fields)


def sequences(shape=(2, 2), codes=3, classes=0, **fields):
    fields = {"width": 16, "depth": 2, "heads": 2, "dropout": 0.0, **fields}
    spec = vgx.CodeSpec(shape, codes, classes)
    return built(part("transformer", **fields), (4, *shape[:2]), spec)


def trained(network, codes, labels=None, steps=200, lr=1e-2):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for number in range(steps):
        loss = network.loss(codes, labels, generator(number))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


# --- the transformer -----------------------------------------------------------------------------


def test_an_index_changes_no_logits_until_it():
    network = sequences(shape=(3, 3), codes=5).eval()
    before = torch.randint(5, (4, 9), generator=generator())
    logits = network.logits(before, None)
    for place in range(9):
        other = before.clone()
        other[:, place] = (other[:, place] + 1) % 5
        changed = (network.logits(other, None) != logits).any(2).any(0)  # [T]
        assert not changed[: place + 1].any()
        assert changed[place + 1 :].all()


def test_the_probabilities_of_all_sequences_sum_to_one_and_are_those_that_are_drawn():
    """Three values at four places: 81 sequences; a label has a distribution of its own."""
    network = sequences(classes=2).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(8)  # far from uniform
        everyone = torch.tensor([*itertools.product(range(3), repeat=4)])  # [81, 4]
        shares = []
        for label in (0, 1):
            labels = torch.full((81,), label)
            logs = network.logits(everyone, labels).log_softmax(2)  # [81, 4, 3]
            joint = logs.gather(2, everyone[..., None])[..., 0].sum(1)  # [81]
            assert joint.exp().sum() == pytest.approx(1, abs=1e-5)
            each = torch.stack(
                [network.loss(s.view(1, 2, 2), labels[:1], generator()) for s in everyone]
            )
            assert torch.allclose(-4 * each, joint, atol=1e-4)
            shares.append(joint.exp())
            n = 20_000
            drawn = network.draw(n, torch.full((n,), label), generator()).flatten(1)
            numbers = drawn @ torch.tensor([27, 9, 3, 1])
            counted = torch.bincount(numbers, minlength=81) / n
            assert (counted - joint.exp()).abs().max() < 4 * math.sqrt(0.25 / n)
    assert (shares[0] - shares[1]).abs().sum() > 0.1


def test_the_attention_is_that_of_a_plain_computation():
    """One layer, with the softmax over the places before written out in numpy."""
    network = sequences(shape=(2, 2), codes=3, depth=1, heads=2).double().eval()
    indices = torch.tensor([[0, 2, 1, 1]])
    state = {name: value.detach().numpy() for name, value in network.state_dict().items()}

    def norm(x, name):
        scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = np.vstack([state["start.weight"][0], state["indices.weight"][[0, 2, 1]]])
    x = x + state["positions"]  # [4, 16]
    q, k, v = np.split(linear(norm(x, "layers.0.attention_norm"), "layers.0.inputs"), 3, 1)
    mixed = np.zeros_like(x)
    for head in (slice(0, 8), slice(8, 16)):
        for i in range(4):
            weights = np.exp([q[i, head] @ k[j, head] / np.sqrt(8) for j in range(i + 1)])
            mixed[i, head] = weights / weights.sum() @ v[: i + 1, head]
    x = x + linear(mixed, "layers.0.outputs")
    hidden = linear(norm(x, "layers.0.network.0"), "layers.0.network.1")
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    x = x + linear(gelu, "layers.0.network.3")
    expected = linear(norm(x, "norm"), "head")
    assert np.allclose(network.logits(indices, None)[0].detach().numpy(), expected, atol=1e-10)


def test_it_learns_a_sequence_that_follows_from_its_label():
    """Two labels with one grid each: nothing is random, so the loss goes to 0."""
    grids = torch.tensor([[[0, 1, 2], [3, 4, 0]], [[4, 4, 1], [0, 2, 3]]])  # [2, 2, 3]
    labels = torch.tensor([0, 1])
    network = sequences(shape=(2, 3), codes=5, classes=2)
    first = network.loss(grids, labels, generator()).item()
    assert first == pytest.approx(math.log(5), rel=0.1)
    trained(network, grids, labels, steps=120)
    assert network.loss(grids, labels, generator()) < 0.02
    drawn = network.draw(6, torch.tensor([0, 1, 1, 0, 0, 1]), generator())
    assert torch.equal(drawn, grids[[0, 1, 1, 0, 0, 1]])


def test_top_k_and_temperature_narrow_what_is_drawn():
    network = sequences(shape=(1, 1), codes=6).eval()
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0, 0.5]))
        network.head.weight.zero_()

    def shares(**settings):
        drawn = network.draw(20_000, None, generator(), **settings).flatten()
        return torch.bincount(drawn, minlength=6) / 20_000

    assert shares(top_k=2).nonzero().flatten().tolist() == [0, 4]
    assert shares(top_k=2)[4] == pytest.approx(math.e / (math.e + 1), abs=0.015)
    halved = F.softmax(network.head.bias / 0.5, 0)
    assert torch.allclose(shares(temperature=0.5), halved, atol=0.015)


def test_levels_of_a_place_follow_each_other():
    network = sequences(shape=(2, 2, 3), codes=4)
    assert network.length == 12
    assert network.draw(5, None, generator()).shape == (5, 2, 2, 3)


# --- rectified flow ------------------------------------------------------------------------------


def test_an_exact_field_moves_noise_to_a_gaussian():
    """The best direction for N(m, s^2) is known: E[x_1 - x_0 | x_t] of two Gaussians, by hand."""
    mean, deviation = (1.5, -0.5), (0.5, 2.0)
    flow = built(part("rectified-flow"), (2,), vgx.CodeSpec((2,), 0, 0, (0.0, 0.0), (1.0, 1.0)))
    m, s = torch.tensor(mean), torch.tensor(deviation)

    def field(x, t, labels):
        t = t[:, None]
        variance = (1 - t) ** 2 + t**2 * s**2
        slope = (t * s**2 - (1 - t)) / variance  # cov(x_1 - x_0, x_t) / var(x_t)
        return m + slope * (x - t * m)

    flow.field = field_module(field)
    for solver, steps, near in (("euler", 400, 0.03), ("heun", 40, 0.02)):
        drawn = flow.draw(40_000, None, generator(), steps=steps, solver=solver)
        assert torch.allclose(drawn.mean(0), m, atol=near)
        assert torch.allclose(drawn.std(0), s, rtol=near)
    still = flow.draw(100, None, generator(), temperature=1e-6)
    assert torch.allclose(still, m.expand(100, 2), atol=1e-3)


def field_module(function):
    class Field(torch.nn.Module):
        def forward(self, x, t, labels):
            return function(x, t, labels)

    return Field()


def learned(flow, latents, labels=None, steps=300, lr=8e-3):
    """Train a flow with a rate that falls to 0."""
    optimizer = torch.optim.Adam(flow.parameters())
    for number in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - number / steps)
        rows = torch.randint(len(latents), (64,), generator=generator(number))
        own = None if labels is None else labels[rows]
        loss = flow.loss(latents[rows], own, generator(number + 10_000))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.eval()


@pytest.mark.slow
def test_a_flow_learns_a_gaussian_with_a_covariance():
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    latents = torch.randn(4000, 2, generator=generator()) @ factor.T + torch.tensor([3.0, -1.0])
    spec = vgx.CodeSpec((2,), 0, 0, tuple(latents.mean(0).tolist()), tuple(latents.std(0).tolist()))
    flow = learned(built(part("rectified-flow", width=8, depth=1), (2,), spec), latents, steps=600)
    drawn = flow.draw(10_000, None, generator(), steps=20)
    assert torch.allclose(drawn.mean(0), latents.mean(0), atol=0.08)
    assert torch.allclose(drawn.T.cov(), latents.T.cov(), atol=0.1)


@pytest.mark.slow
def test_a_flow_learns_spatial_latents_whose_places_belong_together():
    """Places have variance 1, covariance 0.64 however far apart, and a pattern of their class."""
    draws, labels = generator(), torch.arange(4000) % 2
    pattern = torch.tensor([2.0, 2.0, -2.0, -2.0]).expand(4, 4)
    means = torch.stack([pattern, -pattern])[:, None]  # [2, 1, 4, 4]
    common = torch.randn(4000, 1, 1, 1, generator=draws)
    latents = means[labels] + 0.8 * common + 0.6 * torch.randn(4000, 1, 4, 4, generator=draws)
    spec = vgx.CodeSpec((1, 4, 4), 0, 2, (latents.mean().item(),), (latents.std().item(),))
    flow = built(part("rectified-flow", width=8, depth=1), (1, 4, 4), spec)
    drawn = learned(flow, latents, labels).draw(2000, labels[:2000], generator(), steps=20)
    for label in (0, 1):
        own = drawn[labels[:2000] == label, 0]  # [1000, 4, 4]
        assert torch.allclose(own.mean(0), means[label, 0], atol=0.25)
        found = own.flatten(1).T.cov()  # [16, 16]
        assert torch.allclose(found.diagonal(), torch.ones(16), atol=0.25)
        assert found[~torch.eye(16, dtype=bool)].mean() == pytest.approx(0.64, abs=0.1)
        assert found[0, 15] == pytest.approx(0.64, abs=0.15)


@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 3, 5), (5,)])
def test_the_loss_of_a_flow_is_the_error_of_its_direction(shape):
    """A new network says 0 everywhere, so the loss is E|x_1 - x_0|^2 = var + 1 by number."""
    channels = (2.0,) * shape[0]
    spec = vgx.CodeSpec(shape, 0, 3, channels, channels)
    flow = built(part("rectified-flow", width=8, depth=1), shape, spec)
    latents = 2 + 2 * torch.randn(4000, *shape, generator=generator())
    loss = flow.loss(latents, torch.arange(4000) % 3, generator(1))
    assert loss.item() == pytest.approx(2, rel=0.03)
    assert flow.draw(2, torch.tensor([0, 2]), generator(), steps=2).shape == (2, *shape)


# --- the sampler ---------------------------------------------------------------------------------


def test_the_sampler_says_which_setting_a_prior_does_not_have():
    registry = vgx.discover()
    sampler = registry.part("sampler", "learned-prior")(top_k=4)
    drawer = sampler.build(vgx.LatentSpec((4, 2, 2)))

    ones = (0.0,) * 4, (1.0,) * 4

    class Model:
        prior = built(part("rectified-flow"), (4,), vgx.CodeSpec((4,), 0, 0, *ones))

        class recipe:  # noqa: N801
            prior = part("rectified-flow")

    with pytest.raises(vgx.RecipeError, match="top_k: the prior rectified-flow has no such"):
        drawer.use(Model)
