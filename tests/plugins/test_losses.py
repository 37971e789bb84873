"""Losses: their values by hand and by another implementation, and the signs that papers give."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import distributions

import vgx

REAL = torch.tensor([0.0, 1.0, 0.25, 0.5]).view(1, 1, 2, 2)
RECON = torch.tensor([0.5, 0.5, 0.75, 0.0]).view(1, 1, 2, 2)


def loss(name, **settings):
    return vgx.discover().part("loss", name)(**settings)


def step(**given):
    absent = {field.name: None for field in fields(vgx.Step)}
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, "real": REAL, **given})


def judged(real, fake):
    return step(
        real_score=vgx.Score(torch.tensor(real).view(-1, 1)),
        fake_score=vgx.Score(torch.tensor(fake).view(-1, 1)),
    )


def test_l1_l2_and_bce_by_hand():
    logits = torch.logit(torch.tensor([0.5, 0.5, 0.75, 0.25])).view(1, 1, 2, 2)
    at = step(recon=RECON, recon_logits=logits)
    assert loss("l1").generator(at).item() == pytest.approx((0.5 + 0.5 + 0.5 + 0.5) / 4)
    assert loss("l2").generator(at).item() == pytest.approx(0.25)
    ln = math.log
    by_hand = (
        -ln(0.5) - ln(0.5) - (0.25 * ln(0.75) + 0.75 * ln(0.25)) - (0.5 * ln(0.25) + 0.5 * ln(0.75))
    ) / 4
    assert loss("bce").generator(at).item() == pytest.approx(by_hand)
    # From the logits it stays finite where probabilities would be 0 and 1.
    far = step(recon_logits=torch.full_like(REAL, 1000.0))
    assert loss("bce").generator(far).item() == pytest.approx(1000 * (1 - REAL.mean().item()))


def test_adversarial_bce_by_hand():
    at = judged([2.0, -1.0], [0.5, 0.0])
    sigmoid = torch.sigmoid(torch.tensor([2.0, -1.0, 0.5, 0.0])).tolist()
    ln = math.log
    generator = -(ln(sigmoid[2]) + ln(sigmoid[3])) / 2
    real = -(ln(sigmoid[0]) + ln(sigmoid[1])) / 2
    fake = -(ln(1 - sigmoid[2]) + ln(1 - sigmoid[3])) / 2
    assert loss("bce-adversarial").generator(at).item() == pytest.approx(generator)
    assert loss("bce-adversarial").discriminator(at).item() == pytest.approx(real + fake)
    undecided = judged([0.0], [0.0])
    assert loss("bce-adversarial").generator(undecided).item() == pytest.approx(ln(2))
    assert loss("bce-adversarial").discriminator(undecided).item() == pytest.approx(2 * ln(2))


def test_hinge_by_hand():
    at = judged([2.0, 0.5], [-3.0, 0.5])
    assert loss("hinge").generator(at).item() == pytest.approx((3.0 - 0.5) / 2)
    # What is beyond the margin counts nothing: the real 2 and the fake -3.
    assert loss("hinge").discriminator(at).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1.5) / 2)


@pytest.mark.parametrize("name", ["bce-adversarial", "hinge"])
def test_the_players_pull_in_opposite_directions(name):
    real = torch.zeros(2, 1, requires_grad=True)
    fake = torch.zeros(2, 1, requires_grad=True)
    at = step(real_score=vgx.Score(real), fake_score=vgx.Score(fake))
    (pull,) = torch.autograd.grad(loss(name).generator(at), [fake])
    assert (pull < 0).all()  # the generator's loss falls when fakes look more real
    up, down = torch.autograd.grad(loss(name).discriminator(at), [real, fake])
    assert (up < 0).all()  # the discriminator's falls when real looks real
    assert (down > 0).all()  # and when fakes look fake


@pytest.mark.parametrize("unit", ["pixel", "sample"])
def test_kl_is_the_divergence_from_the_standard_normal(unit):
    chance = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(5, 7, generator=chance), torch.randn(5, 7, generator=chance)
    real = torch.rand(5, 3, 4, 4)
    posterior = distributions.Normal(mu, (logvar / 2).exp())
    each = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    value = loss("kl", unit=unit).generator(step(real=real, posterior=vgx.Gaussian(mu, logvar)))
    assert value.item() == pytest.approx(each.mean().item() / (48 if unit == "pixel" else 1))


def test_kl_by_hand_is_half_a_squared_mean():
    posterior = vgx.Gaussian(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2))
    value = loss("kl", unit="sample").generator(step(posterior=posterior))
    assert value.item() == pytest.approx(2.0)


def test_kl_says_its_effective_beta():
    image = vgx.ImageSpec(size=96)
    assert "effective beta is 1 " in loss("kl").note(image)
    assert "effective beta is 55296 " in loss("kl", unit="sample", weight=2.0).note(image)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", {0: 1.0, 25: 1.5, 50: 2.0, 100: 3.0, 500: 3.0}),
        # 1 + 2 * (1 - cos(pi / 4)) / 2 at a quarter of the way
        ("cosine", {0: 1.0, 25: 2 - math.sqrt(0.5), 50: 2.0, 100: 3.0, 500: 3.0}),
        ("cyclical", {0: 1.0, 25: 2.0, 50: 3.0, 99: 3.0, 100: 1.0, 125: 2.0}),
    ],
)
def test_a_schedule_goes_from_one_value_to_the_other(shape, values):
    schedule = vgx.Schedule.model_validate({"from": 1.0, "to": 3.0, "steps": 100, "shape": shape})
    for number, value in values.items():
        assert schedule.at(number) == pytest.approx(value)
